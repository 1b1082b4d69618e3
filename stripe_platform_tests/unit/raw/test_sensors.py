"""The lag sensor asks for a drain when it is worth one, and otherwise says why not."""

import json
import re
from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pytest

from stripe_platform.cdc.drain_requests import run_key
from stripe_platform.cdc.drain_runs import STOPPED_TAG
from stripe_platform.cdc.lag import Lag
from stripe_platform.raw import lag, sensors
from stripe_platform.raw.assets import change_logs
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.raw.sensors import DUE, drain_raw, raw_lag
from stripe_platform.settings import Settings

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ROW = pa.schema({"id": pa.string()})
BOUNDS = {"charges": {0: 10, 1: 7}}


@pytest.mark.parametrize(
    ("behind", "due"),
    [
        (Lag(0, 0.0), False),
        # One marker of a transaction: nothing to read.
        (Lag(1, 0.0), False),
        (Lag(4_999, 19.9), False),
        (Lag(5_000, 0.1), True),
        (Lag(1, 20.0), True),
    ],
)
def test_many_unread_or_one_unread_for_long_is_worth_a_run(behind: Lag, due: bool) -> None:
    assert DUE.is_passed(behind) is due


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
    assert skip.skip_message == ("1,012 unread, the oldest for 1.5 s: a drain starts at 5,000 in one table or 20 s")


def fail(instance: dg.DagsterInstance, stopped: dict[str, str] | None, **bounds: dict[str, int]) -> None:
    instance.create_run_for_job(
        _job(),
        run_config={"ops": {"raw": {"config": {"bounds": bounds}}}},
        tags={STOPPED_TAG: json.dumps(stopped)} if stopped else {},
        status=dg.DagsterRunStatus.FAILURE,
    )


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merchants and refunds have much unread."""
    monkeypatch.setattr(lag, "raw_lag", lambda _: dict.fromkeys(["merchants", "refunds"], Lag(9_000, 60.0)))
    ends = {"merchants": {0: 9_000}, "refunds": {0: 9_000}}
    monkeypatch.setattr(sensors, "last_stable_offsets", lambda _, tables: {table: ends[table] for table in tables})


@pytest.mark.usefixtures("behind")
def test_a_table_that_stopped_is_left_out_and_the_others_are_drained(settings: Settings) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        fail(instance, {"merchants": "SchemaChanged"}, merchants={"0": 9_000}, refunds={"0": 9_000})
        request = raw_lag(dg.build_sensor_context(instance, resources={"settings": settings}))
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection == [dg.AssetKey(["raw", "refunds"])]


@pytest.mark.usefixtures("behind")
@pytest.mark.parametrize(
    ("stopped", "reason"),
    [
        ({"merchants": "SchemaChanged", "refunds": "TopicRecreated"}, "TopicRecreated, see run"),
        (None, "the drain failed, see run"),
    ],
)
def test_when_nothing_can_go_on_it_says_why_and_when_the_next_try_is_made(
    settings: Settings, stopped: dict[str, str] | None, reason: str
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        fail(instance, stopped, merchants={"0": 9_000}, refunds={"0": 9_000})
        skip = raw_lag(dg.build_sensor_context(instance, resources={"settings": settings}))
    assert isinstance(skip, dg.SkipReason)
    assert re.search(
        rf"next try is made: merchants at \d\d:\d\d:\d\d UTC.*; refunds at .*{reason}", skip.skip_message or ""
    )


@pytest.mark.usefixtures("behind")
def test_a_table_that_has_come_to_where_it_failed_is_drained_at_once(settings: Settings) -> None:
    ChangeLog.open(settings, "merchants", row=ROW, topic_id="a").append(ROW.empty_table(), {0: 8_000})
    with dg.DagsterInstance.ephemeral() as instance:
        fail(instance, {"merchants": "SchemaChanged"}, merchants={"0": 8_000})
        request = raw_lag(dg.build_sensor_context(instance, resources={"settings": settings}))
    assert isinstance(request, dg.RunRequest)
    assert len(request.asset_selection or []) == 2


def _job() -> dg.JobDefinition:
    @dg.op(name="raw", config_schema=dg.Field(dict, is_required=False))
    def nothing() -> None: ...

    @dg.job(name=drain_raw.name)
    def job() -> None:
        nothing()

    return job
