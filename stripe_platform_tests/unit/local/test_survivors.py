import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stripe_platform.local import survivors
from stripe_platform.local.survivors import MARK, end_processes_of, processes_of

# Says when it is ready, and ignores to be asked to end.
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


WILLING = "import time; print(flush=True); time.sleep(60)"


def sleeper(home: Path, code: str = WILLING) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MARK: str(home)}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_processes_of_one_stack_are_ended_and_those_of_another_stay(tmp_path: Path) -> None:
    ours, theirs = sleeper(tmp_path / "one"), sleeper(tmp_path / "two")
    with ours, theirs:
        assert [process.pid for process in processes_of(tmp_path / "one")] == [ours.pid]
        end_processes_of(tmp_path / "one")
        assert ours.wait(10) == -signal.SIGTERM
        assert theirs.poll() is None
        theirs.kill()


def test_a_stubborn_process_is_ended_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "GRACE_S", 0.2)
    with sleeper(tmp_path, STUBBORN) as process:
        end_processes_of(tmp_path)
        assert process.wait(10) == -signal.SIGKILL


def test_the_process_that_asks_is_left_out(tmp_path: Path) -> None:
    ask = "import sys; from pathlib import Path; from stripe_platform.local.survivors import processes_of; "
    ask += "sys.exit(len(processes_of(Path(sys.argv[1]))))"
    asked = subprocess.run(
        [sys.executable, "-c", ask, str(tmp_path)],
        env={**os.environ, MARK: str(tmp_path)},
        timeout=30,
        check=False,
    )
    assert asked.returncode == 0
