"""The continuous mode on real servers: from a commit in PostgreSQL to documents, features and the lake."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dagster as dg
import httpx
import psutil
import pytest

from stripe_platform.features.assets import collections
from stripe_platform.features.connection import connect as connect_documents
from stripe_platform.features.sensors import DUE, documents_lag
from stripe_platform.local.environment import environment
from stripe_platform.oltp.connection import connect
from stripe_platform.raw.change_log import row_count
from stripe_platform.settings import Settings

LIMIT_S = 120.0
MERCHANT = (
    "INSERT INTO merchants (business_name, mcc, country, default_currency) VALUES (%s, '5411', 'DE', 'eur') "
    "RETURNING replace(id::text, '-', '')"
)


@pytest.fixture(scope="module")
def platform(new_platform: Callable[[], Settings]) -> Settings:
    return new_platform()


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "stripe_platform.cli", "stream"], env={**os.environ, **environment(settings)}
    )


@pytest.fixture(scope="module")
def stream(platform: Settings) -> Iterator[psutil.Process]:
    with _start(platform) as process:
        yield psutil.Process(process.pid)
        if process.poll() is None:
            process.terminate()
            process.wait(LIMIT_S)


def _until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


def _insert(settings: Settings, name: str) -> str:
    with connect(settings) as postgres:
        ((key,),) = postgres.execute(MERCHANT, [name]).fetchall()
    return f"acct_{key}"


def _is_document(settings: Settings, id_: str) -> bool:
    with connect_documents(settings) as documents:
        return documents["merchants"].find_one({"_id": id_}) is not None


def _metrics(settings: Settings) -> dict[str, float]:
    try:
        text = httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics", trust_env=False).text
    except httpx.HTTPError:
        return {}
    samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in samples}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def _tick(instance: dg.DagsterInstance, settings: Settings) -> dg.RunRequest | dg.SkipReason:
    answer = documents_lag(dg.build_sensor_context(instance, resources={"settings": settings}))
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def _run_request(instance: dg.DagsterInstance, settings: Settings) -> dg.RunRequest | None:
    answer = _tick(instance, settings)
    return answer if isinstance(answer, dg.RunRequest) else None


def _child(stream: psutil.Process, sink: str) -> psutil.Process | None:
    return next((child for child in stream.children() if sink in child.cmdline()), None)


def test_a_commit_becomes_a_document_and_a_row_of_the_lake_without_a_run(
    platform: Settings, stream: psutil.Process
) -> None:
    _until(lambda: _metrics(platform).get('stripe_platform_sink_up{sink="mongodb"}') == 1.0)
    rows = row_count(platform, "merchants")
    id_ = _insert(platform, "first")
    _until(lambda: _is_document(platform, id_))
    _until(lambda: row_count(platform, "merchants") > rows)
    _until(lambda: _metrics(platform).get('stripe_platform_changes_total{sink="mongodb",table="merchants"}', 0) >= 1)
    assert 'stripe_platform_lag_messages{sink="raw"}' in _metrics(platform)


def test_while_the_stream_keeps_up_the_lag_sensor_asks_for_no_run(
    platform: Settings, stream: psutil.Process, instance: dg.DagsterInstance
) -> None:
    began = time.monotonic()
    # By then the first would be due, if nobody had taken it.
    while time.monotonic() - began < 2 * DUE.age.total_seconds():
        id_ = _insert(platform, "while the sensor looks")
        _until(partial(_is_document, platform, id_))
        answer = _tick(instance, platform)
        assert isinstance(answer, dg.SkipReason)
        assert "a drain starts at" in (answer.skip_message or "")


def test_a_sink_that_is_killed_is_started_again_and_goes_on_from_its_own_offsets(
    platform: Settings, stream: psutil.Process
) -> None:
    killed = _until(lambda: _child(stream, "mongodb"))
    killed.kill()
    id_ = _insert(platform, "while it was away")
    _until(lambda: _is_document(platform, id_))
    assert _until(lambda: _child(stream, "mongodb")).pid != killed.pid
    _until(lambda: _metrics(platform).get('stripe_platform_restarts_total{sink="mongodb"}') == 1.0)


def test_a_second_one_beside_it_does_no_harm(platform: Settings, stream: psutil.Process) -> None:
    beside = platform.model_copy(update={"metrics_port": platform.api_port})
    with _start(beside) as second:
        _until(lambda: _metrics(beside).get('stripe_platform_sink_up{sink="mongodb"}') == 1.0)
        ids = [_insert(platform, f"of two {number}") for number in range(50)]
        _until(lambda: all(_is_document(platform, id_) for id_ in ids))
        second.terminate()
        assert second.wait(LIMIT_S) == 0
    after = _insert(platform, "after the second")
    _until(lambda: _is_document(platform, after))


def test_no_sink_outlives_the_process_that_watches_it(platform: Settings, stream: psutil.Process) -> None:
    children = [_until(partial(_child, stream, sink)) for sink in ("raw", "mongodb")]
    stream.send_signal(signal.SIGKILL)
    psutil.wait_procs(children, timeout=LIMIT_S)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_when_the_stream_has_ended_the_lag_sensor_asks_for_a_run_that_takes_over(
    platform: Settings, stream: psutil.Process, instance: dg.DagsterInstance
) -> None:
    assert stream.status() == psutil.STATUS_ZOMBIE, "the test before this one ends it"
    assert _run_request(instance, platform) is None
    id_ = _insert(platform, "after the stream")
    request = _until(lambda: _run_request(instance, platform))
    assert not _is_document(platform, id_)
    dg.materialize([collections], run_config=request.run_config, resources={"settings": platform}, instance=instance)
    assert _is_document(platform, id_)
    assert _run_request(instance, platform) is None
