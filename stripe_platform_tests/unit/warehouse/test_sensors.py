from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from stripe_platform.cdc.broker import BrokerUnavailable
from stripe_platform.cdc.cut import Cut
from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse import sensors
from stripe_platform.warehouse.engines import ENGINES
from stripe_platform.warehouse.sensors import messages_past

ENDS = {"charges": {0: 10, 1: 5}}
LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def decide(
    monkeypatch: pytest.MonkeyPatch,
    instance: dg.DagsterInstance,
    published: Cut | None,
    warehouse: WarehouseEngine = WarehouseEngine.DUCKDB,
    cursor: str | None = None,
) -> dg.RunRequest | dg.SkipReason:
    """What the sensor says when the topics end at ENDS and the marts are published at the cut."""
    engine = replace(ENGINES[warehouse], published_cut=lambda settings: published)
    monkeypatch.setattr(sensors, "last_stable_offsets", lambda settings, tables: ENDS)
    monkeypatch.setattr(sensors, "engine_of", lambda settings: engine)
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    verdict = sensors.warehouse_lag(context, settings=Settings(warehouse=warehouse))
    assert isinstance(verdict, dg.RunRequest | dg.SkipReason)
    return verdict


def cut(offsets: dict[str, dict[int, int]], made_at: datetime = LONG_AGO) -> Cut:
    return Cut("a cut", made_at, offsets, {"charges": "topic"})


def earlier_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    instance.add_run(dg.DagsterRun(job_name="oltp_to_warehouse", status=status))


def skip_reason(verdict: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(verdict, dg.SkipReason)
    assert verdict.skip_message is not None
    return verdict.skip_message


def test_lag_counts_every_partition_also_those_never_built() -> None:
    assert messages_past(ENDS, {}) == 15
    assert messages_past(ENDS, {"charges": {0: 4}}) == 11
    assert messages_past(ENDS, ENDS) == 0


def test_a_build_is_asked_for_when_the_stream_is_past_the_marts(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    assert isinstance(decide(monkeypatch, instance, None), dg.RunRequest)
    assert isinstance(decide(monkeypatch, instance, cut({"charges": {0: 10, 1: 4}})), dg.RunRequest)


def test_nothing_is_asked_for_at_the_end_of_the_stream(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    assert "at the end" in skip_reason(decide(monkeypatch, instance, cut(ENDS)))


def test_young_marts_are_left_alone(monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
    young = cut({"charges": {0: 0, 1: 0}}, datetime.now(UTC))
    assert "younger" in skip_reason(decide(monkeypatch, instance, young))


def test_marts_on_snowflake_are_left_alone_for_longer(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    old = cut({"charges": {0: 0, 1: 0}}, datetime.now(UTC) - timedelta(minutes=20))
    assert isinstance(decide(monkeypatch, instance, old), dg.RunRequest)
    assert "younger than 0:30:00" in skip_reason(decide(monkeypatch, instance, old, WarehouseEngine.SNOWFLAKE))
    older = cut({"charges": {0: 0, 1: 0}}, datetime.now(UTC) - timedelta(minutes=31))
    assert isinstance(decide(monkeypatch, instance, older, WarehouseEngine.SNOWFLAKE), dg.RunRequest)


@pytest.mark.parametrize(("age", "asked_again_in"), [(timedelta(hours=1), 30), (timedelta(minutes=20), 10)])
def test_a_warehouse_that_costs_money_is_not_woken_before_a_build_could_follow(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance, age: timedelta, asked_again_in: int
) -> None:
    kept: list[str] = []
    monkeypatch.setattr(dg.SensorEvaluationContext, "update_cursor", lambda context, cursor: kept.append(cursor))
    decide(monkeypatch, instance, cut(ENDS, datetime.now(UTC) - age), WarehouseEngine.SNOWFLAKE)
    waits = datetime.fromisoformat(kept[-1]) - datetime.now(UTC)
    assert timedelta(minutes=asked_again_in - 1) < waits <= timedelta(minutes=asked_again_in)
    verdict = decide(monkeypatch, instance, None, WarehouseEngine.SNOWFLAKE, kept[-1])
    assert "is not asked before" in skip_reason(verdict)
    assert isinstance(decide(monkeypatch, instance, None, WarehouseEngine.DUCKDB, kept[-1]), dg.RunRequest)


def test_a_build_under_way_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    earlier_run(instance, dg.DagsterRunStatus.STARTED)
    assert "under way" in skip_reason(decide(monkeypatch, instance, None))


def test_after_a_failed_build_it_waits(monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
    earlier_run(instance, dg.DagsterRunStatus.FAILURE)
    assert "failed" in skip_reason(decide(monkeypatch, instance, None))
    monkeypatch.setattr(sensors, "WAIT_AFTER_FAILURE", timedelta(0))
    assert isinstance(decide(monkeypatch, instance, None), dg.RunRequest)


def test_without_a_broker_it_skips_and_says_so(monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
    def unreachable(settings: Settings, tables: list[str]) -> None:
        raise BrokerUnavailable(settings.kafka_bootstrap, "no answer")

    monkeypatch.setattr(sensors, "last_stable_offsets", unreachable)
    verdict = sensors.warehouse_lag(dg.build_sensor_context(instance=instance), settings=Settings())
    assert isinstance(verdict, dg.SkipReason)
