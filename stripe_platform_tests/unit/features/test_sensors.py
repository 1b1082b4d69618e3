import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stripe_platform.cdc.drain_runs import STOPPED_TAG
from stripe_platform.cdc.lag import Lag
from stripe_platform.errors import StripePlatformError
from stripe_platform.features import sensors
from stripe_platform.features.assets import collections
from stripe_platform.features.offsets import Stored, TableOffsets
from stripe_platform.features.sensors import documents_lag
from stripe_platform.jobs import oltp_to_mongodb
from stripe_platform.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(stripe_platform_home=tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def lags(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lag]:
    """What the sensor finds the tables to be behind by."""
    found = {"charges": Lag(0, 0.0), "refunds": Lag(0, 0.0)}

    @contextmanager
    def connect(settings: Settings) -> Iterator[None]:
        yield None

    monkeypatch.setattr(sensors, "connect", connect)
    monkeypatch.setattr(sensors, "mongodb_lag", lambda *_: found)
    monkeypatch.setattr(sensors, "stored_offsets", lambda _: Stored(1, {}, {}))
    monkeypatch.setattr(sensors, "last_stable_offsets", lambda _, tables: {table: {0: 7} for table in tables})
    return found


def tick(instance: dg.DagsterInstance, settings: Settings, cursor: str | None = None) -> dg.RunRequest | dg.SkipReason:
    """What the sensor answers; `cursor` is the version of the store that it saw before."""
    answer = documents_lag(dg.build_sensor_context(instance, cursor=cursor, resources={"settings": settings}))
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def run_of_job(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **more: Any) -> None:
    job = dg.Definitions(
        assets=[collections], jobs=[oltp_to_mongodb], resources={"settings": Settings()}
    ).resolve_job_def("oltp_to_mongodb")
    instance.create_run_for_job(job, status=status, **more)


def failed(instance: dg.DagsterInstance, stopped: dict[str, str]) -> None:
    """A run that was to bring both tables to offset 7."""
    bounds = {"charges": {"0": 7}, "refunds": {"0": 7}}
    run_of_job(
        instance,
        dg.DagsterRunStatus.FAILURE,
        run_config={"ops": {"documents": {"config": {"bounds": bounds, "quiet_seconds": 5.0}}}},
        tags={STOPPED_TAG: json.dumps(stopped)} if stopped else {},
    )


@pytest.mark.parametrize("behind", [Lag(5_000, 0.1), Lag(1, 3.0)])
def test_one_table_that_is_behind_is_worth_a_run_of_all(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag], behind: Lag
) -> None:
    lags["refunds"] = behind
    request = tick(instance, settings)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["ops"]["documents"]["config"]["bounds"] == {"charges": {"0": 7}, "refunds": {"0": 7}}


def test_while_the_continuous_mode_keeps_up_it_says_why_it_skips(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag]
) -> None:
    lags["charges"] = Lag(4_999, 2.9)
    skip = tick(instance, settings)
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message == "4,999 unread, the oldest for 2.9 s: a drain starts at 5,000 in one table or 3 s"


def test_a_stream_that_is_behind_and_goes_on_is_left_alone_and_one_that_stands_still_is_not(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag]
) -> None:
    lags["charges"] = Lag(50_000, 9.0)
    skip = tick(instance, settings, cursor="0")
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message == "another writer is at work on what is unread"
    assert isinstance(tick(instance, settings, cursor="1"), dg.RunRequest)


def test_a_table_that_stopped_and_has_nothing_unread_does_not_fail_the_run_that_others_need(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Stored(1, {"refunds": TableOffsets("a", {0: 7}, {})}, {})
    monkeypatch.setattr(sensors, "stored_offsets", lambda _: stored)
    failed(instance, {"refunds": "ColumnsMissing"})
    lags["charges"] = Lag(5_000, 9.0)
    request = tick(instance, settings)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["ops"]["documents"]["config"]["bounds"].keys() == {"charges"}


def test_a_drain_that_has_not_ended_is_not_doubled(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag]
) -> None:
    lags["charges"] = Lag(5_000, 9.0)
    run_of_job(instance, dg.DagsterRunStatus.STARTED)
    skip = tick(instance, settings)
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message == "the previous drain has not ended"


def test_without_mongodb_the_sensor_skips_and_passes_on_the_remedy(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StripePlatformError("start it")

    monkeypatch.setattr(sensors, "mongodb_lag", away)
    skip = tick(instance, settings)
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message == "the lag cannot be measured: start it"


def test_a_table_that_stopped_is_left_out_of_the_next_run_and_the_others_are_drained(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag]
) -> None:
    lags |= {"charges": Lag(5_000, 9.0), "refunds": Lag(5_000, 9.0)}
    failed(instance, {"refunds": "ColumnsDiffer"})
    request = tick(instance, settings)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["ops"]["documents"]["config"]["bounds"] == {"charges": {"0": 7}}


@pytest.mark.parametrize("stopped", [{"refunds": "ColumnsDiffer"}, {}])
def test_when_nothing_that_is_due_can_go_on_it_says_why_and_when_the_next_try_is_made(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag], stopped: dict[str, str]
) -> None:
    lags["refunds"] = Lag(5_000, 9.0)
    failed(instance, stopped)
    skip = tick(instance, settings)
    assert isinstance(skip, dg.SkipReason)
    assert "the next try is made: " in (skip.skip_message or "")
    assert f"{stopped.get('refunds', 'the drain failed')}, see run" in (skip.skip_message or "")


def test_once_the_documents_have_come_to_where_it_failed_a_table_is_drained_again(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag], monkeypatch: pytest.MonkeyPatch
) -> None:
    lags["refunds"] = Lag(5_000, 9.0)
    failed(instance, {"refunds": "ColumnsDiffer"})
    monkeypatch.setattr(sensors, "stored_offsets", lambda _: Stored(1, {"refunds": TableOffsets("a", {0: 7}, {})}, {}))
    request = tick(instance, settings)
    assert isinstance(request, dg.RunRequest)
    assert "refunds" in request.run_config["ops"]["documents"]["config"]["bounds"]
