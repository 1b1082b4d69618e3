"""`doctor`, `logs` and `reset` on real servers: healthy, ailing, down, and begun anew."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from shutil import disk_usage

import httpx
import psutil
import pytest
from pydantic import ByteSize
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed
from typer.testing import CliRunner

from stripe_platform.cdc.connector import CONNECTOR, register
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cli import app
from stripe_platform.doctor.examine import LIMIT_S, examine
from stripe_platform.doctor.finding import Finding, State
from stripe_platform.local import credentials, stack
from stripe_platform.local.environment import environment
from stripe_platform.local.errors import NotEnoughDisk
from stripe_platform.local.home import CONTENTS
from stripe_platform.local.reset import reset
from stripe_platform.local.server import run_folder
from stripe_platform.local.supervisor import Supervisor
from stripe_platform.local.survivors import processes_of, wait_for_end
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.replication import PUBLICATION
from stripe_platform.raw.change_log import row_count
from stripe_platform.raw.drain import drain, drain_up_to
from stripe_platform.settings import Settings

# `up --empty` starts none of these, and takes the snapshots later.
NOT_THERE = {"Dagster", "Dashboard", "Stream", "snapshots"}


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.looked_at: finding for finding in examine(settings).findings}


def bad(settings: Settings) -> set[str]:
    return {name for name, finding in findings(settings).items() if finding.state is State.PROBLEM}


eventually = retry(
    retry=retry_if_exception_type(AssertionError), stop=stop_after_delay(60), wait=wait_fixed(0.3), reraise=True
)


@pytest.fixture(scope="module")
def platform(new_platform: Callable[[], Settings]) -> Iterator[Settings]:
    settings = new_platform()
    eventually(lambda: _assert_sound(settings))()
    yield settings
    stack.stop(settings)


@pytest.mark.usefixtures("stack_environment")
def test_a_healthy_stack_is_all_ok_but_for_what_was_not_started(stack: Settings) -> None:
    # The task opens its slot some seconds after it was registered.
    eventually(lambda: _assert_sound(stack))()
    answer = CliRunner().invoke(app, ["doctor", "--json"])
    found = {finding["looked_at"]: finding for finding in json.loads(answer.stdout)["findings"]}
    not_ok = {name for name, finding in found.items() if finding["state"] != "ok"}
    assert {"Dagster", "Stream"} <= not_ok <= NOT_THERE, [found[name] for name in not_ok]
    assert answer.exit_code == 0
    assert {"PostgreSQL", "schema", "clock", "connector", "replication slot", "topics"} <= set(found)
    for name in credentials.NAMES:
        assert stack.secret(name) not in answer.stdout


def test_a_reset_knows_all_that_a_stack_keeps_in_its_home(stack: Settings) -> None:
    assert set(os.listdir(stack.home)) - {"run"} <= set(CONTENTS)


def test_a_server_that_is_stopped_is_one_problem_and_so_is_who_took_its_port(platform: Settings) -> None:
    Supervisor(platform).stop("mongodb")
    try:
        assert bad(platform) == {"MongoDB"}
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", platform.mongodb_port))
            holder.listen()
            taken = f"port {platform.mongodb_port} (MONGODB_PORT)"
            assert bad(platform) == {"MongoDB", taken}
            assert f"pid {os.getpid()}" in findings(platform)[taken].found
    finally:
        stack.start(platform)
    assert bad(platform) == set()


def test_a_server_that_hangs_is_told_and_keeps_nobody_waiting(platform: Settings) -> None:
    eventually(lambda: _assert_all_run(platform))()
    (mongod,) = [state.pid for state in stack.server_states(platform) if state.name == "mongodb"]
    started = time.monotonic()
    psutil.Process(mongod).suspend()
    try:
        found = findings(platform)
    finally:
        psutil.Process(mongod).resume()
    assert time.monotonic() - started < 2 * LIMIT_S
    assert found["MongoDB"].state is State.PROBLEM
    assert "does not answer" in found["MongoDB"].found
    assert found["PostgreSQL"].state is State.OK
    eventually(lambda: _assert_sound(platform))()


def _assert_all_run(settings: Settings) -> None:
    servers = {state.name: state.state for state in stack.server_states(settings)}
    assert {name for name, state in servers.items() if state != "RUNNING"} == {"stream", "dagster", "dashboard"}


def _assert_sound(settings: Settings) -> None:
    assert not [finding for finding in findings(settings).values() if finding.state is State.PROBLEM]


def test_a_failed_connector_is_named_with_its_cause_and_its_remedy_and_so_is_the_slot_that_it_leaves_unread(
    platform: Settings,
) -> None:
    restart = f"{platform.connect_url}/connectors/{CONNECTOR}/restart?includeTasks=true"
    with connect(platform, autocommit=True) as postgres:
        postgres.execute(f"ALTER PUBLICATION {PUBLICATION} RENAME TO elsewhere")
        try:
            httpx.post(restart, trust_env=False).raise_for_status()
            eventually(lambda: _assert_failed(platform))()
        finally:
            postgres.execute(f"ALTER PUBLICATION elsewhere RENAME TO {PUBLICATION}")
            register(platform)
    eventually(lambda: _assert_sound(platform))()


def _assert_failed(settings: Settings) -> None:
    found = findings(settings)
    connector, slot = found["connector"], found["replication slot"]
    assert connector.state is State.PROBLEM
    assert "FAILED" in connector.found
    assert "ublication" in connector.found
    assert "stripe-platform up" in (connector.remedy or "")
    assert slot.state is State.PROBLEM
    assert "is not read" in slot.found
    assert "stripe-platform logs connect" in (slot.remedy or "")


def test_a_drain_on_a_full_disk_commits_nothing_and_the_next_one_takes_all(platform: Settings) -> None:
    with connect(platform) as postgres:
        postgres.execute(
            "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
            "VALUES ('of a test', '5411', 'DE', 'eur')"
        )
    bounds = make_cut(platform).offsets
    full = platform.model_copy(update={"least_free_bytes": ByteSize(disk_usage(platform.home).total)})
    with pytest.raises(NotEnoughDisk, match=str(platform.home)):
        drain(full, bounds=bounds)
    assert row_count(platform, "merchants") == 0
    taken = drain_up_to(platform, bounds, bounds).tables["merchants"]
    assert set(taken.begin.values()) == {0}
    assert all(taken.end[place] >= offset for place, offset in bounds["merchants"].items())
    assert row_count(platform, "merchants") == taken.rows > 0


def test_logs_show_the_servers_and_end_quietly_when_they_are_interrupted(platform: Settings) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "stripe_platform.cli", "logs", "--follow", "--lines", "1"],
        env={**os.environ, **environment(platform)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        first = {following.stdout.readline().split("|")[0].strip() for _ in range(5)}
        assert first == {"postgres", "kafka", "mongodb", "connect", "supervisord"}
        following.send_signal(signal.SIGINT)
        _, error = following.communicate(timeout=30)
    assert following.returncode == 0
    assert "Traceback" not in error


def test_what_a_dead_stack_left_is_told_a_reset_ends_and_removes_it_and_a_start_begins_anew(
    platform: Settings,
) -> None:
    supervisor = psutil.Process(int((run_folder(platform) / "supervisord.pid").read_text()))
    supervisor.kill()
    wait_for_end([supervisor], 10)
    orphans = processes_of(platform.home)
    assert bad(platform) == {"supervisor"}
    assert "stripe-platform down" in (findings(platform)["supervisor"].remedy or "")

    with connect(platform) as postgres:
        postgres.execute("CREATE TABLE public.gone ()")
    reset(platform)
    assert wait_for_end(orphans, 0) == []
    assert [path.name for path in platform.home.iterdir()] == ["run"]
    assert [path.name for path in run_folder(platform).iterdir()] == ["stack.lock"]
    assert bad(platform) == set()
    assert findings(platform)["supervisor"].remedy == "`make up`"

    bare = Settings.model_validate(platform.model_dump(exclude=set(credentials.NAMES)))
    again = stack.start(bare).settings
    assert all(again.secret(name) != platform.secret(name) for name in credentials.NAMES)
    with connect(again) as postgres:
        assert postgres.execute("SELECT to_regclass('public.gone')").fetchone() == (None,)
    assert "schema" in bad(again)
