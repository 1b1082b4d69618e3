"""The sinks' processes end together, and within what the supervisor of the stream waits for."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stripe_platform.local.credentials import NAMES as SECRET_NAMES
from stripe_platform.local.stream import STREAM
from stripe_platform.settings import Settings
from stripe_platform.stream import process
from stripe_platform.stream.follower import RAW_LIMIT
from stripe_platform.stream.process import STOP_LIMIT_S, SinkProcess, stop_all
from stripe_platform.stream.run import BESIDE_LIMIT_S

# Told to stop, it waits until its neighbour has been told, too.
CHILD = """
import pathlib, signal, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
def stop(*_):
    mine.touch()
    while not other.exists():
        time.sleep(0.01)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print('{"changes": {}}', flush=True)
while True:
    signal.pause()
"""
NAMES = ("raw", "mongodb")


def test_both_are_asked_to_stop_before_either_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def command(sink: str) -> list[str]:
        other = next(name for name in NAMES if name != sink)
        return [sys.executable, "-c", CHILD, str(tmp_path / sink), str(tmp_path / other)]

    ready = {name: threading.Event() for name in NAMES}
    monkeypatch.setattr(process, "_command", command)
    monkeypatch.setattr(process, "STOP_LIMIT_S", 5.0)
    sinks = [SinkProcess(name, lambda sink, _: ready[sink].set()) for name in NAMES]
    for sink in sinks:
        sink.keep_up()
    assert all(event.wait(30) for event in ready.values())
    children = [sink._process for sink in sinks]
    stop_all(sinks)
    assert [child.returncode for child in children if child] == [0, 0]


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{\"changes\": {}}', flush=True)\n"
    monkeypatch.setattr(process, "_command", lambda _: [sys.executable, "-c", f"{deaf}while True: signal.pause()"])
    monkeypatch.setattr(process, "STOP_LIMIT_S", 0.1)
    ready = threading.Event()
    sink = SinkProcess("raw", lambda *_: ready.set())
    sink.keep_up()
    assert ready.wait(30)
    stop_all([sink])
    assert not sink.is_up


def test_each_limit_of_stopping_lies_within_the_next() -> None:
    secrets: dict[str, Any] = dict.fromkeys(SECRET_NAMES, "?")
    assert RAW_LIMIT.total_seconds() < STOP_LIMIT_S
    assert STREAM.program(Settings(**secrets)).stop_limit > STOP_LIMIT_S + 2 * BESIDE_LIMIT_S
