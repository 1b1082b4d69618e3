from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from stripe_platform.cdc.lag import Lag
from stripe_platform.errors import StripePlatformError
from stripe_platform.features import sensors
from stripe_platform.features.assets import collections
from stripe_platform.features.sensors import FIRST_PAUSE, LONGEST_PAUSE, documents_lag, paused_until
from stripe_platform.jobs import oltp_to_mongodb
from stripe_platform.settings import Settings

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


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
    monkeypatch.setattr(sensors, "last_stable_offsets", lambda _, tables: {table: {0: 7} for table in tables})
    return found


def tick(instance: dg.DagsterInstance, settings: Settings) -> dg.RunRequest | dg.SkipReason:
    answer = documents_lag(dg.build_sensor_context(instance, resources={"settings": settings}))
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def ended(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus) -> None:
    """Runs that ended so, the last one last."""
    job = dg.Definitions(
        assets=[collections], jobs=[oltp_to_mongodb], resources={"settings": Settings()}
    ).resolve_job_def("oltp_to_mongodb")
    for status in statuses:
        instance.create_run_for_job(job, status=status)


@pytest.mark.parametrize("behind", [Lag(5_000, 0.1), Lag(1, 3.0)])
def test_the_tables_that_are_behind_are_the_bounds_of_one_run(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag], behind: Lag
) -> None:
    lags["refunds"] = behind
    request = tick(instance, settings)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["ops"]["documents"]["config"]["bounds"] == {"refunds": {"0": 7}}


def test_while_the_continuous_mode_keeps_up_it_says_why_it_skips(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag]
) -> None:
    lags["charges"] = Lag(4_999, 2.9)
    skip = tick(instance, settings)
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message == "4,999 unread, the oldest for 2.9 s: a drain starts at 5,000 in one table or 3 s"


def test_a_drain_that_has_not_ended_is_not_doubled(
    instance: dg.DagsterInstance, settings: Settings, lags: dict[str, Lag]
) -> None:
    lags["charges"] = Lag(5_000, 9.0)
    ended(instance, dg.DagsterRunStatus.STARTED)
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


@pytest.mark.parametrize(
    ("statuses", "pause"),
    [
        ([FAILURE], FIRST_PAUSE),
        ([FAILURE, FAILURE, FAILURE], 4 * FIRST_PAUSE),
        ([FAILURE, SUCCESS, FAILURE], FIRST_PAUSE),
        ([FAILURE] * 9, LONGEST_PAUSE),
    ],
)
def test_after_failures_in_a_row_the_pause_doubles_up_to_ten_minutes(
    instance: dg.DagsterInstance,
    settings: Settings,
    lags: dict[str, Lag],
    statuses: list[dg.DagsterRunStatus],
    pause: timedelta,
) -> None:
    lags["charges"] = Lag(5_000, 9.0)
    ended(instance, *statuses)
    (last,) = instance.get_run_records(limit=1)
    assert paused_until(instance) == last.update_timestamp + pause
    skip = tick(instance, settings)
    assert isinstance(skip, dg.SkipReason)
    assert "the next try is made at" in (skip.skip_message or "")


def test_a_success_ends_the_pause(instance: dg.DagsterInstance) -> None:
    ended(instance, FAILURE, FAILURE, SUCCESS)
    assert paused_until(instance) is None
