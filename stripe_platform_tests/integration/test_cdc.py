"""PostgreSQL to the topics, on a stack whose connector first starts among rows and open transactions."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import dagster as dg
import httpx
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from stripe_platform.cdc import checks
from stripe_platform.cdc.assets import connector as connector_asset
from stripe_platform.cdc.broker import admin, connection
from stripe_platform.cdc.connect import ConnectClient
from stripe_platform.cdc.connector import (
    CONNECTOR,
    ConnectorNotRunning,
    connector_config,
    connector_state,
    register,
)
from stripe_platform.cdc.cut import Cut, CutNotMade, make_cut
from stripe_platform.cdc.offsets import beginning_offsets, last_stable_offsets, topic_ids, written_offsets
from stripe_platform.cdc.slot import SLOT, slot_state
from stripe_platform.cdc.topics import (
    HEARTBEAT_TOPIC,
    MESSAGE_TOPIC,
    TRANSACTION_TOPIC,
    TopicPartitionsDiffer,
    declared_topics,
    ensure_topics,
    topic_for,
)
from stripe_platform.cdc.watch import Attempts, connector_watch
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings

OPEN_TRANSACTIONS = 40
CANARIES = ("canary-mail@example.org", "Canary Lastname", "+33-canary", "198.51.100.77", "canary-device")
# Longer than any limit of the server for keeping a value in the row, and not compressible.
LARGE_METADATA = json.dumps({"note": secrets.token_hex(8000)})


class RawRecord(NamedTuple):
    """A record as a read_committed consumer sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Record:
    """A record of one topic, decoded."""

    partition: int
    offset: int
    key: dict[str, Any] | None
    value: dict[str, Any] | None


@dataclass(frozen=True)
class FirstStart:
    """What was in PostgreSQL when the connector started for the first time, and what a cut said meanwhile."""

    settings: Settings
    merchants: list[str]
    cut_refusal: str


@pytest.fixture(scope="module")
def first_start(new_stack: Callable[[], Settings]) -> FirstStart:
    settings = new_stack()
    migrate(settings)
    with connect(settings) as postgres:
        merchants = [new_merchant(postgres, f"merchant {number}") for number in range(OPEN_TRANSACTIONS)]
        plant_canaries(postgres, merchants[0])
    transactions = [connect(settings) for _ in merchants]
    for merchant, transaction in zip(merchants, transactions, strict=True):
        rename(transaction, merchant, "renamed while the connector started")
    with ThreadPoolExecutor(1) as pool:
        registration = pool.submit(register, settings)
        until(lambda: slot_state(settings) is not None, 30, "a slot that waits")
        with pytest.raises(CutNotMade) as refused:
            make_cut(settings, timeout=timedelta(seconds=2))
        # Not in the order in which they began.
        for transaction in transactions[::2] + transactions[1::2]:
            transaction.commit()
            transaction.close()
        assert registration.result().is_running
    make_cut(settings)
    return FirstStart(settings, merchants, str(refused.value))


@pytest.fixture(scope="module")
def settings(first_start: FirstStart) -> Settings:
    return first_start.settings


@pytest.fixture
def postgres(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def merchant(postgres: psycopg.Connection) -> str:
    return new_merchant(postgres, "a merchant")


def new_merchant(postgres: psycopg.Connection, name: str, metadata: str = "{}") -> str:
    row = postgres.execute(
        "INSERT INTO payments.merchants (business_name, mcc, country, default_currency, metadata) "
        "VALUES (%s, '5411', 'FR', 'eur', %s) RETURNING id::text",
        (name, metadata),
    ).fetchone()
    assert row is not None
    return str(row[0])


def rename(postgres: psycopg.Connection, merchant: str, name: str) -> None:
    postgres.execute("UPDATE payments.merchants SET business_name = %s WHERE id = %s", (name, merchant))


def plant_canaries(postgres: psycopg.Connection, merchant: str) -> None:
    """A customer and a charge with recognisable personal values, each changed once."""
    email, name, phone, address, device = CANARIES
    postgres.execute("INSERT INTO payments.customers (email, name, phone) VALUES (%s, %s, %s)", (email, name, phone))
    postgres.execute("UPDATE payments.customers SET phone = phone || ' 2'")
    postgres.execute(
        "INSERT INTO payments.charges (merchant_id, amount, currency, status, paid, ip, device_id) "
        "VALUES (%s, 1000, 'eur', 'succeeded', true, %s, %s)",
        (merchant, address, device),
    )
    postgres.execute("UPDATE payments.charges SET description = 'changed', ip = ip")


def raw_records(settings: Settings, *topics: str) -> list[RawRecord]:
    """Every committed record of the topics, as bytes."""
    options: dict[str, str | int | float | bool] = {
        "group.id": "stripe-platform-test",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer = Consumer(connection(settings) | options)
    known = consumer.list_topics(timeout=10).topics
    places = [TopicPartition(topic, partition, 0) for topic in topics for partition in known[topic].partitions]
    consumer.assign(places)
    found = []
    ends = 0
    while ends < len(places):
        record = consumer.poll(10)
        assert record is not None, f"{topics} did not come to their ends"
        if record.error():
            ends += 1
        else:
            place = (record.topic() or "", record.partition() or 0, record.offset() or 0)
            found.append(RawRecord(*place, record.key() or b"", record.value() or b""))
    consumer.close()
    return found


def records(settings: Settings, topic: str) -> list[Record]:
    return [
        Record(raw.partition, raw.offset, json.loads(raw.key or "null"), json.loads(raw.value or "null"))
        for raw in raw_records(settings, topic)
    ]


def of_merchant(settings: Settings, merchant: str) -> list[Record]:
    found = records(settings, topic_for("merchants"))
    return sorted((r for r in found if r.key and r.key["id"] == merchant), key=lambda record: record.offset)


def until(is_so: Callable[[], bool], limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.2)


def verdict(check: Callable[..., object], settings: Settings) -> dg.AssetCheckResult:
    result = check(settings=settings)
    assert isinstance(result, dg.AssetCheckResult)
    return result


def everything_written(settings: Settings) -> dict[str, bytes]:
    """All committed bytes of every topic, Connect's own included."""
    internal = {"__consumer_offsets", "__transaction_state"}
    written = dict.fromkeys(admin(settings).list_topics(timeout=10).topics.keys() - internal, b"")
    for raw in raw_records(settings, *written):
        written[raw.topic] += raw.key + b"\n" + raw.value + b"\n"
    return written


def test_a_cut_during_the_first_start_says_that_the_slot_waits_for_open_transactions(
    first_start: FirstStart,
) -> None:
    assert "waits for transactions that are open" in first_start.cut_refusal


def test_transactions_open_across_the_first_start_come_right_in_offset_order(first_start: FirstStart) -> None:
    last = {r.key["id"]: r.value for r in records(first_start.settings, topic_for("merchants")) if r.key}
    names = {last[merchant]["after"]["business_name"] for merchant in first_start.merchants}  # type: ignore[index]
    assert names == {"renamed while the connector started"}


def test_a_partitioned_table_is_one_topic_and_its_rows_are_in_the_snapshot_once(settings: Settings) -> None:
    written = {name for name in admin(settings).list_topics(timeout=10).topics if name.startswith("stripe.")}
    assert written <= {topic.name for topic in declared_topics()}
    snapshot = [r.value for r in records(settings, topic_for("charges")) if r.value and r.value["op"] == "r"]
    assert len(snapshot) == 1
    assert snapshot[0]["source"]["table"] == "charges"


def test_a_row_streams_under_the_name_of_the_partitioned_table(
    settings: Settings, postgres: psycopg.Connection, merchant: str
) -> None:
    postgres.execute(
        "INSERT INTO payments.charges (merchant_id, amount, currency, status, paid) "
        "VALUES (%s, 4711, 'eur', 'succeeded', true)",
        (merchant,),
    )
    make_cut(settings)
    created = [r.value for r in records(settings, topic_for("charges")) if r.value and r.value["op"] == "c"]
    assert [v["source"]["table"] for v in created if v["after"]["amount"] == 4711] == ["charges"]


def test_no_personal_value_is_in_any_topic_neither_from_the_snapshot_nor_from_the_stream(
    settings: Settings, postgres: psycopg.Connection, merchant: str
) -> None:
    plant_canaries(postgres, merchant)
    make_cut(settings)
    written = everything_written(settings)
    assert b"country" in written[topic_for("customers")]
    found = [(topic, canary) for topic, text in written.items() for canary in CANARIES if canary.encode() in text]
    assert found == []
    assert b"198.51.100" not in written[topic_for("charges")]


def test_connect_shows_and_stores_references_and_no_secret(settings: Settings) -> None:
    shown = "".join(
        httpx.get(f"{settings.connect_url}/connectors/{CONNECTOR}/{what}", trust_env=False).text
        for what in ("config", "tasks", "status")
    )
    stored = b"".join(text for topic, text in everything_written(settings).items() if "connect" in topic).decode()
    assert "${env:CDC_PASSWORD}" in shown
    assert "${env:CDC_PASSWORD}" in stored
    for name in ("cdc_password", "postgres_password", "toast_placeholder"):
        assert settings.secret(name) not in shown + stored


def test_insert_update_and_delete_come_in_order_and_a_tombstone_follows_the_delete(
    settings: Settings, postgres: psycopg.Connection, merchant: str
) -> None:
    rename(postgres, merchant, "another name")
    postgres.execute("DELETE FROM payments.merchants WHERE id = %s", (merchant,))
    make_cut(settings)
    values = [record.value for record in of_merchant(settings, merchant)]
    assert [value and value["op"] for value in values] == ["c", "u", "d", None]
    assert values[1] is not None
    assert values[1]["after"]["business_name"] == "another name"
    assert values[2] is not None
    assert values[2]["before"]["id"] == merchant


def test_a_large_value_that_did_not_change_is_the_secret_placeholder(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    merchant = new_merchant(postgres, "large", LARGE_METADATA)
    rename(postgres, merchant, "still large")
    make_cut(settings)
    created, updated = (record.value for record in of_merchant(settings, merchant))
    assert created is not None
    assert json.loads(created["after"]["metadata"]) == json.loads(LARGE_METADATA)
    assert updated is not None
    assert updated["after"]["metadata"] == settings.secret("toast_placeholder")


def test_a_truncate_is_not_skipped(settings: Settings, postgres: psycopg.Connection) -> None:
    with postgres.transaction():
        # The platform's own trigger forbids it; a superuser can pass by.
        postgres.execute("SET LOCAL session_replication_role = replica")
        postgres.execute("TRUNCATE payments.disputes, payments.dispute_balance_transactions")
    make_cut(settings)
    assert [r.value["op"] for r in records(settings, topic_for("disputes")) if r.value] == ["t"]


def test_money_time_and_decimals_have_one_form_each(settings: Settings, postgres: psycopg.Connection) -> None:
    postgres.execute(
        "INSERT INTO payments.exchange_rates (day, currency, rate, created) "
        "VALUES ('2031-05-06', 'usd', 0.9, '2031-05-06 07:08:09.123456+00')"
    )
    make_cut(settings)
    (row,) = (
        r.value["after"] for r in records(settings, topic_for("exchange_rates")) if r.value and r.value["op"] == "c"
    )
    assert row["day"] == 22405
    assert row["rate"] == "0.9000000000"
    assert row["created"] == "2031-05-06T07:08:09.123456Z"


def test_a_transaction_has_its_begin_and_its_end_with_counts_per_table(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    with postgres.transaction():
        merchants = [new_merchant(postgres, f"one of two {number}") for number in range(2)]
        postgres.execute("INSERT INTO payments.customers (merchant_id) VALUES (%s)", (merchants[0],))
    make_cut(settings)
    (change,) = (record.value for record in of_merchant(settings, merchants[0]))
    assert change is not None
    # The id is the transaction's and a position: that of the begin, of the change, of the end.
    xid = change["transaction"]["id"].partition(":")[0]
    bounds = [
        r.value for r in records(settings, TRANSACTION_TOPIC) if r.value and r.value["id"].partition(":")[0] == xid
    ]
    assert [bound["status"] for bound in bounds] == ["BEGIN", "END"]
    assert {c["data_collection"]: c["event_count"] for c in bounds[1]["data_collections"]} == {
        "payments.merchants": 2,
        "payments.customers": 1,
    }


def test_records_are_written_in_kafka_transactions(settings: Settings) -> None:
    visible = len(records(settings, topic_for("currencies")))
    end = last_stable_offsets(settings, ["currencies"])["currencies"][0]
    assert visible > 0
    # Only the marker of a transaction's end takes an offset and is no record.
    assert end > visible


def test_a_heartbeat_comes_as_a_message_and_the_slot_moves_on_without_any_change(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    def confirmed() -> int:
        row = postgres.execute(
            "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s",
            (SLOT,),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def heartbeats() -> int:
        prefixes = [r.value["message"]["prefix"] for r in records(settings, MESSAGE_TOPIC) if r.value]
        return prefixes.count("heartbeat")

    position, count = confirmed(), heartbeats()
    until(lambda: heartbeats() > count, 25, "a heartbeat in the topic of messages")
    until(lambda: confirmed() > position, 25, "a confirmed position past the heartbeat")


def test_registering_again_changes_nothing(settings: Settings) -> None:
    stored = ("stripe-connect-configs", "stripe-connect-status")
    # Sorted: which of two topics is read first is by chance.
    before = sorted(raw_records(settings, *stored))
    assert register(settings).is_running
    assert ensure_topics(settings) == ()
    assert sorted(raw_records(settings, *stored)) == before
    assert ConnectClient(settings.connect_url).config(CONNECTOR) == connector_config()


def test_a_row_committed_before_a_cut_is_below_it_and_the_next_cut_is_not_lower(
    settings: Settings, postgres: psycopg.Connection, merchant: str
) -> None:
    first = make_cut(settings)
    (change,) = of_merchant(settings, merchant)
    assert change.offset < first.offsets["merchants"][change.partition]
    rename(postgres, merchant, "after the first cut")
    second = make_cut(settings)
    later = of_merchant(settings, merchant)[-1]
    assert first.offsets["merchants"][later.partition] <= later.offset
    assert later.offset < second.offsets["merchants"][later.partition]
    assert all(
        first.offsets[table][partition] <= offset
        for table, partitions in second.offsets.items()
        for partition, offset in partitions.items()
    )


@contextmanager
def open_transaction(settings: Settings, table: str) -> Iterator[None]:
    """A Kafka transaction that has written to the table's topic and ends with the block; nobody sees its record."""
    producer = Producer(connection(settings) | {"transactional.id": "stripe-platform-test"})
    producer.init_transactions(30)
    producer.begin_transaction()
    try:
        producer.produce(topic_for(table), value=b"{}", partition=0)
        assert producer.flush(10) == 0
        yield
    finally:
        producer.abort_transaction(30)


def test_a_cut_waits_until_all_that_is_written_before_it_is_visible(settings: Settings) -> None:
    with ThreadPoolExecutor(1) as pool:
        with open_transaction(settings, "refunds"):
            written = written_offsets(settings, ["refunds"])["refunds"]
            assert last_stable_offsets(settings, ["refunds"])["refunds"][0] < written[0]
            with pytest.raises(CutNotMade, match=r"a Kafka transaction .* has not ended"):
                make_cut(settings, timeout=timedelta(seconds=3))
            waiting = pool.submit(make_cut, settings)
        cut = waiting.result()
    assert all(cut.offsets["refunds"][partition] >= end for partition, end in written.items())


def test_a_cut_s_time_is_of_the_clock_that_commit_times_are_of(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    def now() -> datetime:
        row = postgres.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        return row[0]  # type: ignore[no-any-return]

    before = now()
    cut = make_cut(settings)
    assert before <= cut.made_at <= now()
    assert cut.made_at.tzinfo == UTC


def test_cuts_at_once_do_not_disturb_each_other(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        cuts = [cut.result() for cut in [pool.submit(make_cut, settings) for _ in range(4)]]
    assert len({cut.id for cut in cuts}) == 4


def test_a_cut_names_every_partition_of_every_captured_table_and_its_topic(settings: Settings) -> None:
    cut = make_cut(settings)
    assert Cut.from_json(cut.to_json()) == cut
    assert {table: set(offsets) for table, offsets in cut.offsets.items()} == {
        table.name: set(range(table.topic_partitions)) for table in CAPTURED_TABLES
    }
    tables = list(cut.offsets)
    assert cut.topic_ids == topic_ids(settings, tables)
    assert len(set(cut.topic_ids.values())) == len(tables)
    assert set(beginning_offsets(settings, tables)["charges"].values()) == {0}


def test_the_connector_asset_registers_and_tells_its_state_without_a_secret(settings: Settings) -> None:
    result = dg.materialize([connector_asset], resources={"settings": settings})
    (event,) = result.asset_materializations_for_node(connector_asset.op.name)
    assert event.metadata["state"].value == "connector RUNNING, tasks RUNNING"
    assert event.metadata["tables"].value == len(CAPTURED_TABLES)
    assert settings.secret("cdc_password") not in str(event.metadata)


def test_all_checks_pass_while_the_connector_runs(settings: Settings) -> None:
    assert verdict(checks.connector_and_task_are_running, settings).passed
    assert verdict(checks.connector_reads_the_log, settings).passed
    assert verdict(checks.topics_have_the_declared_partitions, settings).passed


def test_a_paused_connector_fails_the_check_refuses_a_cut_at_once_and_runs_again_when_registered(
    settings: Settings,
) -> None:
    httpx.put(f"{settings.connect_url}/connectors/{CONNECTOR}/pause", trust_env=False)
    until(lambda: not connector_state(settings).is_running, 10, "a paused connector")
    outcome = verdict(checks.connector_and_task_are_running, settings)
    assert not outcome.passed
    assert "PAUSED" in str(outcome.metadata["state"].value)
    started = time.monotonic()
    with pytest.raises(CutNotMade, match="PAUSED"):
        make_cut(settings)
    assert time.monotonic() - started < 10
    assert register(settings).is_running
    make_cut(settings)


def test_a_lost_connection_to_postgres_is_taken_up_again_without_help(
    settings: Settings, postgres: psycopg.Connection, merchant: str
) -> None:
    killed = postgres.execute(
        "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cdc')"
    ).fetchone()
    assert killed is not None
    assert killed[0] > 0
    make_cut(settings)
    assert [record.value["op"] for record in of_merchant(settings, merchant) if record.value] == ["c"]


def test_a_connector_locked_out_of_postgres_fails_the_check_though_connect_calls_it_running(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    postgres.execute("ALTER ROLE cdc NOLOGIN")
    try:
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cdc'")
        until(lambda: not verdict(checks.connector_reads_the_log, settings).passed, 10, "a slot nobody reads")
        with pytest.raises(CutNotMade, match="is not read"):
            make_cut(settings, timeout=timedelta(seconds=1))
    finally:
        postgres.execute("ALTER ROLE cdc LOGIN")
    make_cut(settings)
    until(lambda: verdict(checks.connector_reads_the_log, settings).passed, 10, "a slot that is read")


@contextmanager
def failed_task(settings: Settings, postgres: psycopg.Connection) -> Iterator[None]:
    """A task that has failed and fails again as long as this lasts: its publication is not there."""
    postgres.execute("ALTER PUBLICATION stripe_platform RENAME TO elsewhere")
    try:
        restart = f"{settings.connect_url}/connectors/{CONNECTOR}/restart?includeTasks=true"
        httpx.post(restart, trust_env=False)
        until(lambda: connector_state(settings).has_failed, 20, "a failed task")
        yield
    finally:
        postgres.execute("ALTER PUBLICATION elsewhere RENAME TO stripe_platform")


def test_a_task_that_failed_is_named_with_its_cause_and_restarted_by_the_next_registration(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    with failed_task(settings, postgres), pytest.raises(ConnectorNotRunning, match="Publication"):
        register(settings)
    assert register(settings).is_running
    make_cut(settings)


def test_a_task_that_failed_is_restarted_by_the_watch_and_not_at_once_again(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    with failed_task(settings, postgres):
        first = watched(settings, cursor=None)
        assert Attempts.from_cursor(first).count == 1
        until(lambda: connector_state(settings).has_failed, 20, "a task that failed again")
        assert watched(settings, cursor=first) == first
    watched(settings, cursor=None)
    until(lambda: connector_state(settings).is_running, 20, "a running task")
    make_cut(settings)


def watched(settings: Settings, cursor: str | None) -> str | None:
    """The cursor after one tick of the sensor."""
    with dg.build_sensor_context(cursor=cursor, resources={"settings": settings}) as context:
        connector_watch(context)
        return context.cursor


# Last: the partitions of a topic cannot be taken away again.
def test_a_topic_with_another_partition_count_fails_the_check_and_is_never_altered(
    settings: Settings,
) -> None:
    admin_client = admin(settings)
    (added,) = admin_client.create_partitions([NewPartitions(HEARTBEAT_TOPIC, 2)]).values()
    added.result(10)
    until(
        lambda: not verdict(checks.topics_have_the_declared_partitions, settings).passed,
        10,
        "the new partition",
    )
    outcome = verdict(checks.topics_have_the_declared_partitions, settings)
    assert outcome.metadata["differing_topics"].value == 1
    with pytest.raises(TopicPartitionsDiffer, match=r"heartbeat\.stripe has 2, declared 1"):
        ensure_topics(settings)
