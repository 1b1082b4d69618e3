"""Servers that are killed under live traffic: back by themselves, and nothing lost or doubled."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psutil
import psycopg
import pytest

from stripe_platform.cdc.cut import make_cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.connection import connect as connect_documents
from stripe_platform.features.lag import mongodb_lag
from stripe_platform.features.sink import TABLES
from stripe_platform.local.stack import server_states
from stripe_platform.local.supervisor import Process, Supervisor
from stripe_platform.oltp.connection import connect
from stripe_platform.raw.change_log import row_count
from stripe_platform.settings import Settings
from stripe_platform_tests.end_to_end.documents_of_oltp import assert_documents_are_oltp

# docs/benchmarks.md has how long it takes; here the machine may be busy with other tests.
LIMIT_S = 240
STILL_WITHIN_S = 2.0
PAYMENTS_PER_SECOND = 20
MONGODB_AWAY_S = 60.0


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


@pytest.fixture(scope="module")
def stream(line: Any, traffic: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The continuous mode, at work beside the traffic until the tests of this module have ended."""
    process = line.start("stream")
    yield process
    process.terminate()
    process.communicate(timeout=LIMIT_S)


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


def _until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about: {what}"
        time.sleep(0.2)


def _mongodb(settings: Settings) -> Process:
    return Supervisor(settings).processes()["mongodb"]


@contextmanager
def _mongodb_away(settings: Settings, seconds: float) -> Iterator[None]:
    """mongod is killed and kept from coming back; it comes when the body has ended, not before `seconds` are over."""
    supervisor, killed = Supervisor(settings), _mongodb(settings).pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    # Who starts it again must have noticed that it ended.
    _until(lambda: _mongodb(settings).pid != killed, "the supervisor sees that mongod was killed")
    while _mongodb(settings).state != "STOPPED":
        supervisor.stop("mongodb")
    try:
        yield
        while time.monotonic() - began < seconds:
            assert _mongodb(settings).state == "STOPPED"
            time.sleep(0.2)
    finally:
        supervisor.start("mongodb")


@contextmanager
def _held_still(process: subprocess.Popen[str], settings: Settings) -> Iterator[None]:
    """The traffic pauses; what it had asked PostgreSQL for is done."""
    traffic = psutil.Process(process.pid)

    def is_still() -> bool:
        traffic.suspend()
        deadline = time.monotonic() + STILL_WITHIN_S
        while _at_work(settings):
            if time.monotonic() > deadline:
                # One of its transactions waits for a row that another one of it holds.
                traffic.resume()
                return False
            time.sleep(0.1)
        return True

    try:
        _until(is_still, "PostgreSQL has done what the traffic asked for")
        yield
    finally:
        traffic.resume()


def _at_work(settings: Settings) -> int:
    with connect(settings) as postgres:
        ((count,),) = postgres.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    return int(count)


def _documents_are_behind(settings: Settings) -> int:
    with connect_documents(settings) as documents:
        return sum(lag.messages for lag in mongodb_lag(settings, documents, TABLES).values())


def _document_count(settings: Settings) -> int:
    with connect_documents(settings) as documents:
        return documents["charges"].count_documents({"status": {"$exists": True}})


def test_a_minute_without_mongodb_holds_up_neither_payments_nor_the_warehouse(
    line: Any,
    traffic: subprocess.Popen[str],
    stream: subprocess.Popen[str],
    assert_staging_is_oltp: Callable[[Settings], None],
) -> None:
    settings: Settings = line.settings
    charges = _charges(settings)
    _until(lambda: _document_count(settings) > charges, "the documents follow the traffic")
    with _mongodb_away(settings, MONGODB_AWAY_S):
        charges, raw = _charges(settings), row_count(settings, "charges")
        _wait_for_charges(settings, charges + 5 * PAYMENTS_PER_SECOND)
        # By the stream, whose other sink is without its server.
        _until(lambda: row_count(settings, "charges") > raw, "the lake follows the traffic")
        # The crashes of the other servers are behind it too.
        with _held_still(traffic, settings):
            assert_staging_is_oltp(settings)
    assert stream.poll() is None
    charges = _charges(settings)
    _until(lambda: _document_count(settings) > charges, "the documents follow the traffic again")


def test_after_the_crashes_every_charge_is_a_document_and_is_counted_once_in_its_tiles(
    line: Any, traffic: subprocess.Popen[str], stream: subprocess.Popen[str]
) -> None:
    settings: Settings = line.settings
    _wait_for_charges(settings, _charges(settings))
    traffic.send_signal(signal.SIGINT)
    _, error = traffic.communicate(timeout=60)
    assert traffic.returncode == 0, error[-2000:]
    make_cut(settings, timeout=timedelta(seconds=LIMIT_S))
    _until(lambda: not _documents_are_behind(settings), "the documents are at the end of the topics")
    assert stream.poll() is None
    assert_documents_are_oltp(settings)
