"""What is seen of the stream on real servers: offsets, lag, slot, and a transaction that nobody ends."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from confluent_kafka import Producer

from stripe_platform.cdc import limit_checks, observation, sensors
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.observation import open_transactions, topic_states
from stripe_platform.cdc.slot import SLOT, slot_state
from stripe_platform.cdc.topics import topic_for
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw import lag_checks
from stripe_platform.raw.drain import drain
from stripe_platform.settings import Settings
from stripe_platform.status import platform_status

LIMIT_SECONDS = 60
TABLE = "reviews"


@pytest.fixture
def lake(stack: Settings, tmp_path: Path) -> Settings:
    """The servers of the shared stack with a lake of its own: every log begins at offset 0."""
    (tmp_path / "secrets").symlink_to(stack.secrets)
    return stack.model_copy(update={"stripe_platform_home": tmp_path})


@pytest.fixture
def hung(stack: Settings) -> Iterator[Settings]:
    """A transaction with one record that is not ended during the test; no reader ever sees the record."""
    producer = Producer({"bootstrap.servers": stack.kafka_bootstrap, "transactional.id": f"test-{uuid4()}"})
    producer.init_transactions(LIMIT_SECONDS)
    producer.begin_transaction()
    producer.produce(topic_for(TABLE), value=b"never to be seen", partition=0)
    producer.flush(LIMIT_SECONDS)
    yield stack
    producer.abort_transaction(LIMIT_SECONDS)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def insert_merchants(settings: Settings, count: int) -> None:
    with connect(settings) as postgres:
        postgres.execute(
            "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
            "SELECT 'of a test', '5411', 'DE', 'eur' FROM generate_series(1, %s)",
            [count],
        )
    make_cut(settings, timeout=timedelta(seconds=LIMIT_SECONDS))


def evaluated(settings: Settings, check: dg.AssetChecksDefinition) -> dict[str, dg.AssetCheckEvaluation]:
    """The check's verdict by asset, as a run gives it."""
    defs = dg.Definitions(asset_checks=[check], resources={"settings": settings})
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(check))
    resolved = dg.Definitions(asset_checks=[check], jobs=[job], resources=defs.resources).resolve_job_def("checks")
    result = resolved.execute_in_process()
    return {each.asset_key.to_user_string(): each for each in result.get_asset_check_evaluations()}


def test_the_sensor_reports_offsets_lag_and_slot_and_after_a_drain_that_the_lag_is_gone(
    lake: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_merchants(lake, 20)
    with dg.DagsterInstance.ephemeral() as instance:
        first = sensors.observe_stream(dg.build_sensor_context(instance, resources={"settings": lake}))
        assert isinstance(first, dg.SensorResult)
        reports = {event.asset_key.path[-1]: event for event in first.asset_events}
        assert reports.keys() == {"connector", *TABLES_BY_NAME}
        merchants = reports["merchants"].metadata
        state = topic_states(lake, ["merchants"])["merchants"]
        assert merchants["last_stable_offsets"].value == {"0": state.last_stable[0]}
        assert state.last_stable[0] >= 20
        assert merchants["messages"].value == merchants["raw_lag_messages"].value == state.messages
        slot = slot_state(lake)
        assert slot
        kept = merchants["slot_kept_bytes"].value
        assert isinstance(kept, int)
        assert 0 < kept <= slot.kept_bytes + 100 * 1024**2

        drain(lake, ["merchants"])
        monkeypatch.setattr(sensors, "REPORTED_EVERY", timedelta(0))
        context = dg.build_sensor_context(instance, cursor=first.cursor, resources={"settings": lake})
        second = sensors.observe_stream(context)
        assert isinstance(second, dg.SensorResult)
        (report,) = [event for event in second.asset_events if event.asset_key.path[-1] == "merchants"]
        assert report.metadata["raw_lag_messages"].value == 0


def test_the_slots_limit_is_that_of_the_server(stack: Settings) -> None:
    slot = slot_state(stack)
    assert slot
    assert slot.limit_bytes == 10 * 1024**3
    with connect(stack, autocommit=True) as postgres:
        ((shown,),) = postgres.execute("SELECT pg_size_bytes(current_setting('max_slot_wal_keep_size'))").fetchall()
    assert shown == slot.limit_bytes


def test_the_slot_check_passes_and_warns_when_half_of_the_limit_is_kept(
    stack: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verdict() -> dg.AssetCheckEvaluation:
        return evaluated(stack, limit_checks.slot_is_below_its_limit)["cdc/connector"]

    sound = verdict()
    assert sound.passed
    assert SLOT in str(sound.metadata["slot"].value)
    # With half of the limit at nothing, whatever is kept is past it.
    insert_merchants(stack, 1)
    monkeypatch.setattr(limit_checks, "SLOT_WARNING", -1)
    assert (verdict().passed, verdict().severity) == (False, dg.AssetCheckSeverity.WARN)


def test_a_hung_transaction_is_seen_by_its_age_and_fails_its_table_alone(
    hung: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = topic_states(hung, TABLES_BY_NAME)
    assert states[TABLE].high_water[0] > states[TABLE].last_stable[0]
    age = open_transactions(hung, states)
    assert age.keys() == {TABLE}
    assert 0 <= age[TABLE] < LIMIT_SECONDS

    def verdicts() -> dict[str, bool]:
        found = evaluated(hung, limit_checks.last_stable_offset_moves)
        return {asset: each.passed for asset, each in found.items()}

    assert all(verdicts().values())
    monkeypatch.setattr(observation, "LONGEST_TRANSACTION", timedelta(seconds=0.2))
    until(lambda: open_transactions(hung, states)[TABLE] > 0.2)
    assert [asset for asset, passed in verdicts().items() if not passed] == [f"cdc/{TABLE}"]


def test_a_transaction_that_ended_is_not_open(stack: Settings) -> None:
    assert open_transactions(stack, topic_states(stack, TABLES_BY_NAME)) == {}


def test_the_lag_check_fails_for_the_table_that_is_behind_and_passes_after_its_drain(
    lake: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain(lake)
    insert_merchants(lake, 30)
    monkeypatch.setattr("stripe_platform.cdc.lag.MOST_UNREAD", 20)

    def failing() -> list[str]:
        found = evaluated(lake, lag_checks.raw_lag_is_below_its_limit)
        assert found.keys() == {f"raw/{table}" for table in TABLES_BY_NAME}
        return [asset for asset, each in found.items() if not each.passed]

    assert failing() == ["raw/merchants"]
    drain(lake, ["merchants"])
    assert failing() == []


def test_the_status_tells_offsets_lag_and_slot(lake: Settings) -> None:
    insert_merchants(lake, 5)
    status = json.loads(platform_status(lake).model_dump_json())
    (stage,) = [stage for stage in status["stages"] if stage["table"] == "merchants"]
    state = topic_states(lake, ["merchants"])["merchants"]
    assert stage["topic_begin_offsets"] == {"0": state.begin[0]}
    assert stage["topic_end_offsets"] == {"0": state.last_stable[0]}
    assert stage["lag_messages"] == state.messages
    assert stage["lag_seconds"] > 0
    assert status["slot"]["wal_status"] == "reserved"
    assert status["slot"]["limit_bytes"] == 10 * 1024**3
