"""The lag sensor asks for a drain when it is worth one, and otherwise says why not."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from stripe_platform.cdc.lag import Lag
from stripe_platform.raw import lag
from stripe_platform.raw.assets import change_logs
from stripe_platform.raw.sensors import drain_raw, is_due, raw_lag, run_key
from stripe_platform.settings import Settings

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BOUNDS = {"charges": {0: 10, 1: 7}}


@pytest.mark.parametrize(
    ("behind", "due"),
    [
        (Lag(0, 0.0), False),
        # One marker of a transaction: nothing to read.
        (Lag(1, 0.0), False),
        (Lag(4_999, 4.9), False),
        (Lag(5_000, 0.1), True),
        (Lag(1, 5.0), True),
    ],
)
def test_many_unread_or_one_unread_for_long_is_worth_a_run(behind: Lag, due: bool) -> None:
    assert is_due(behind) is due


def test_the_same_bounds_have_one_key_within_a_minute_and_another_after_it() -> None:
    assert run_key(BOUNDS, NOON) == run_key(BOUNDS, NOON + timedelta(seconds=59))
    assert run_key(BOUNDS, NOON) != run_key(BOUNDS, NOON + timedelta(seconds=60))
    assert run_key(BOUNDS, NOON) != run_key({"charges": {0: 11, 1: 7}}, NOON)


def test_a_drain_that_hangs_is_ended_after_three_minutes(settings: Settings) -> None:
    defs = dg.Definitions(assets=[change_logs], jobs=[drain_raw], resources={"settings": settings})
    tags = defs.resolve_job_def("drain_raw").tags
    assert tags["dagster/max_runtime"] == "180"


def test_a_drain_that_has_not_ended_is_not_doubled(settings: Settings) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(_job(), status=dg.DagsterRunStatus.STARTED)
        skip = raw_lag(dg.build_sensor_context(instance, resources={"settings": settings}))
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message == "the previous drain has not ended"


def test_without_a_broker_the_sensor_skips_and_names_the_remedy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_platform.cdc.offsets.REQUEST_LIMIT", timedelta(seconds=1))
    nowhere = settings.model_copy(update={"kafka_port": 1})
    with dg.DagsterInstance.ephemeral() as instance:
        skip = raw_lag(dg.build_sensor_context(instance, resources={"settings": nowhere}))
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message is not None
    assert "127.0.0.1:1" in skip.skip_message
    assert "up`" in skip.skip_message


def test_a_quiet_change_stream_is_skipped_with_its_numbers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "raw_lag", lambda _: {"charges": Lag(12, 1.5), "refunds": Lag(1_000, 0.5)})
    with dg.DagsterInstance.ephemeral() as instance:
        skip = raw_lag(dg.build_sensor_context(instance, resources={"settings": settings}))
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message == ("1,012 unread, the oldest for 1.5 s: a drain starts at 5,000 in one table or 5 s")


def _job() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job(name=drain_raw.name)
    def job() -> None:
        nothing()

    return job
