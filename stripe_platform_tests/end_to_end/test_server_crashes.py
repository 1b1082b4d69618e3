"""Servers that are killed under live traffic: back by themselves, and nothing lost or doubled."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from stripe_platform.cdc.cut import make_cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.stack import server_states
from stripe_platform.oltp.connection import connect
from stripe_platform.settings import Settings

# docs/benchmarks.md has how long it takes; here the machine may be busy with other tests.
LIMIT_S = 240
PAYMENTS_PER_SECOND = 20


@pytest.fixture(scope="module")
def line(new_platform: Callable[[], Settings], command_line: Any) -> Any:
    settings = new_platform()
    # A crash may lose nothing that was committed: here commits are durable again.
    with connect(settings, autocommit=True) as postgres:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            postgres.execute(f"ALTER SYSTEM RESET {name}".encode())
        postgres.execute("SELECT pg_reload_conf()")
    line = command_line(settings)
    line("simulate", "--payments", "500", "--days", "10", "--seed", "1")
    return line


@pytest.fixture(scope="module")
def traffic(line: Any) -> Iterator[subprocess.Popen[str]]:
    """Live payments until the tests of this module have ended."""
    process = line.start("simulate", "--rate", str(PAYMENTS_PER_SECOND), "--duration", "1200", "--seed", "2")
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def _charges(settings: Settings) -> int:
    with connect(settings) as postgres:
        ((count,),) = postgres.execute("SELECT count(*) FROM charges").fetchall()
    return int(count)


def _wait_for_charges(settings: Settings, above: int) -> int:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            if (now := _charges(settings)) > above:
                return now
        except psycopg.Error:
            pass
        assert time.monotonic() < deadline, "no new charge came"
        time.sleep(0.2)


def _pid(settings: Settings, name: str) -> int | None:
    return next(server.pid for server in server_states(settings) if server.name == name)


def _wait_until_everything_flows(settings: Settings) -> None:
    """Until a mark that was committed after the crash has come through the topics."""
    deadline = time.monotonic() + LIMIT_S
    while (trouble := _trouble(settings, deadline - time.monotonic())) is not None:
        assert time.monotonic() < deadline, f"not back: {trouble}"
        time.sleep(0.2)


def _trouble(settings: Settings, seconds: float) -> str | None:
    try:
        # One mark with all the time that is left: it need not catch up with traffic that goes on.
        make_cut(settings, timeout=timedelta(seconds=seconds))
    except (StripePlatformError, psycopg.Error) as error:
        return str(error)
    return None


@pytest.mark.parametrize("server", ["postgres", "kafka", "connect"])
def test_a_killed_server_is_back_by_itself(line: Any, traffic: subprocess.Popen[str], server: str) -> None:
    settings: Settings = line.settings
    before = _wait_for_charges(settings, _charges(settings))
    killed = _pid(settings, server)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    _wait_until_everything_flows(settings)
    assert _pid(settings, server) not in (None, killed)
    _wait_for_charges(settings, before)
    assert traffic.poll() is None


def test_after_the_crashes_staging_is_postgres_row_by_row(
    line: Any, traffic: subprocess.Popen[str], assert_staging_is_oltp: Callable[[Settings], None]
) -> None:
    traffic.send_signal(signal.SIGINT)
    _, error = traffic.communicate(timeout=60)
    assert traffic.returncode == 0, error[-2000:]
    assert_staging_is_oltp(line.settings)
