"""From the topics into the raw change log, on a real PostgreSQL, Connect and Kafka: every change once."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import duckdb
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from stripe_platform.cdc.broker import BrokerUnavailable, TopicMissing, admin
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.envelope import UndecodableRecord
from stripe_platform.cdc.offsets import beginning_offsets, topic_ids
from stripe_platform.cdc.reader import OffsetsOutOfRange
from stripe_platform.cdc.report import BoundsNotReached, DrainReport, TablesStopped
from stripe_platform.cdc.topics import ensure_topics, topic_for
from stripe_platform.local.environment import environment
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.replication import published_tables, refresh_replication
from stripe_platform.raw import assets, checks, sensors
from stripe_platform.raw.buffer import Point
from stripe_platform.raw.change_log import TopicRecreated, next_offsets, parquet_files, row_count
from stripe_platform.raw.drain import SINK, drain, drain_up_to
from stripe_platform.raw.lag import raw_lag
from stripe_platform.raw.schema import SchemaChanged
from stripe_platform.settings import Settings

LIMIT_SECONDS = 60


@pytest.fixture(scope="module")
def platform(new_platform: Callable[[], Settings]) -> Settings:
    """A stack of its own: these tests break topics and change tables."""
    return new_platform()


@pytest.fixture
def lake(platform: Settings, tmp_path: Path) -> Settings:
    """The servers of the platform with a lake of its own: every log begins at offset 0."""
    (tmp_path / "secrets").symlink_to(platform.secrets)
    return platform.model_copy(update={"stripe_platform_home": tmp_path})


def insert_merchants(settings: Settings, count: int = 1) -> list[str]:
    with connect(settings) as postgres:
        rows = postgres.execute(
            "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
            "SELECT 'of a test', '5411', 'DE', 'eur' FROM generate_series(1, %s) RETURNING id::text",
            (count,),
        ).fetchall()
    return sorted(id for (id,) in rows)


def insert_customer(settings: Settings, **values: str | None) -> str:
    id = str(uuid4())
    names, row = ", ".join(["id", *values]), (id, *values.values())
    with connect(settings) as postgres:
        postgres.execute(f"INSERT INTO payments.customers ({names}) VALUES ({', '.join(['%s'] * len(row))})", row)
    return id


def change_merchant(settings: Settings, statement: str, id: str) -> None:
    with connect(settings) as postgres:
        postgres.execute(statement, {"id": id})


def drain_everything(settings: Settings, *tables: str) -> DrainReport:
    """Drain up to a cut: what was committed before is in the logs afterwards."""
    cut = make_cut(settings, timeout=timedelta(seconds=LIMIT_SECONDS))
    return drain_up_to(settings, tables, cut.offsets, limit=timedelta(seconds=LIMIT_SECONDS))


def stored(settings: Settings, table: str, what: str, of: list[str] | None = None) -> list[tuple[Any, ...]]:
    """`what` of the stored changes in order of their offsets, of these ids or of all."""
    rows = duckdb.read_parquet(parquet_files(settings, table), union_by_name=True)
    if of is not None:
        rows = rows.filter(f"id IN ({', '.join(repr(id) for id in of)})")
    return rows.order("_partition, _offset").select(what).fetchall()


def assert_each_offset_is_stored_once(settings: Settings, table: str) -> None:
    places = stored(settings, table, "_partition, _offset")
    assert len(set(places)) == len(places)


def test_inserts_updates_and_deletes_arrive_once_and_typed(lake: Settings) -> None:
    (id,) = insert_merchants(lake)
    change_merchant(lake, "UPDATE payments.merchants SET business_name = 'renamed' WHERE id = %(id)s", id)
    change_merchant(lake, "DELETE FROM payments.merchants WHERE id = %(id)s", id)
    drain_everything(lake, "merchants")
    wanted = "_op, business_name, charges_enabled, created IS NULL, _snapshot, _xid IS NULL, _unchanged"
    assert stored(lake, "merchants", wanted, of=[id]) == [
        ("c", "of a test", True, False, False, False, []),
        ("u", "renamed", True, False, False, False, []),
        ("d", None, None, True, False, False, []),
    ]


def test_commit_times_are_those_of_postgresql_to_the_microsecond(lake: Settings) -> None:
    (id,) = insert_merchants(lake)
    with connect(lake) as postgres:
        row = postgres.execute("SELECT created FROM payments.merchants WHERE id = %s", (id,)).fetchone()
    drain_everything(lake, "merchants")
    ((created, waited),) = stored(lake, "merchants", "created, _committed_at - created", of=[id])
    assert row == (created,)
    # `created` is the transaction's begin: the commit came later, and at once.
    assert timedelta(0) < waited < timedelta(seconds=LIMIT_SECONDS)


def test_the_reference_data_comes_through_with_its_types(lake: Settings) -> None:
    drain_everything(lake, "exchange_rates", "currencies")
    with connect(lake) as postgres:
        rates = postgres.execute("SELECT day, currency, rate FROM payments.exchange_rates").fetchall()
        codes = postgres.execute("SELECT code, exponent FROM payments.currencies").fetchall()
    assert rates
    assert sorted(stored(lake, "exchange_rates", "day, currency, rate")) == sorted(rates)
    assert sorted(stored(lake, "currencies", "code, exponent")) == sorted(codes)


def test_an_unchanged_large_value_is_null_and_named(lake: Settings) -> None:
    (id,) = insert_merchants(lake)
    # Incompressible and beyond the page: kept outside the row, and left out of the log when unchanged.
    change_merchant(
        lake,
        "UPDATE payments.merchants SET metadata = (SELECT jsonb_build_object('noise', "
        "string_agg(md5(random()::text), '')) FROM generate_series(1, 1000)) WHERE id = %(id)s",
        id,
    )
    change_merchant(lake, "UPDATE payments.merchants SET business_name = 'renamed' WHERE id = %(id)s", id)
    drain_everything(lake, "merchants")
    assert stored(lake, "merchants", "length(metadata) > 32000, _unchanged", of=[id])[1:] == [
        (True, []),
        (None, ["metadata"]),
    ]


def test_draining_again_adds_nothing_and_no_lag_is_left(lake: Settings) -> None:
    insert_merchants(lake, 10)
    first = drain_everything(lake, "merchants")
    assert first.rows >= 10
    rows, files = row_count(lake, "merchants"), parquet_files(lake, "merchants")
    again = drain(lake, ["merchants"])
    assert (again.rows, again.lag, again.moved) == (0, 0, False)
    assert (row_count(lake, "merchants"), parquet_files(lake, "merchants")) == (rows, files)
    # Markers of transactions do not count for ever.
    assert raw_lag(lake)["merchants"].messages == 0


def test_lag_counts_what_is_unread_and_the_age_of_the_oldest(lake: Settings) -> None:
    drain_everything(lake, "merchants")
    insert_merchants(lake, 7)
    make_cut(lake, timeout=timedelta(seconds=LIMIT_SECONDS))
    behind = raw_lag(lake)["merchants"]
    # The records and the marker of their transaction.
    assert 7 <= behind.messages <= 9
    assert 0 < behind.seconds < LIMIT_SECONDS


def test_a_bound_that_the_topic_does_not_reach_is_named_and_not_waited_for(lake: Settings) -> None:
    drain_everything(lake, "merchants")
    beyond = {"merchants": {0: next_offsets(lake, "merchants")[0] + 5}}
    with pytest.raises(BoundsNotReached, match=r"merchants by 5"):
        drain_up_to(lake, ["merchants"], beyond, run_limit=timedelta(seconds=1))


@pytest.mark.parametrize("point", ["polled", "decoded", "committing", "committed", "published"])
def test_a_drain_that_is_killed_loses_no_row_and_doubles_none(lake: Settings, point: Point) -> None:
    ids = insert_merchants(lake, 50)
    make_cut(lake, timeout=timedelta(seconds=LIMIT_SECONDS))
    killed = subprocess.run(
        [sys.executable, "-c", DRAIN_AND_DIE, point],
        env=os.environ | environment(lake),
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    is_committed = point in ("committed", "published")
    assert (row_count(lake, "merchants") > 0) is is_committed
    drain_everything(lake, "merchants")
    assert sorted(stored(lake, "merchants", "id", of=ids)) == [(id,) for id in ids]
    assert_each_offset_is_stored_once(lake, "merchants")


DRAIN_AND_DIE = """
import os, signal, sys
from stripe_platform.raw.drain import drain
from stripe_platform.settings import load_settings

def at(point):
    if point == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

drain(load_settings(), ["merchants"], at=at)
"""


def test_of_two_drains_at_once_one_loses_the_batch_and_every_row_is_there_once(lake: Settings) -> None:
    ids = insert_merchants(lake, 200)
    make_cut(lake, timeout=timedelta(seconds=LIMIT_SECONDS))
    both_hold_the_batch = threading.Barrier(2)
    points: list[Point] = []

    def drain_beside() -> DrainReport:
        met = False

        def at(point: Point) -> None:
            nonlocal met
            points.append(point)
            if point == "committing" and not met:
                met = True
                both_hold_the_batch.wait(LIMIT_SECONDS)

        return drain(lake, ["merchants"], at=at)

    with ThreadPoolExecutor() as pool:
        reports = [running.result() for running in [pool.submit(drain_beside) for _ in range(2)]]
    # The loser came as far as the commit, and no further.
    assert points.count("committing") == points.count("committed") + 1
    assert sum(report.rows for report in reports) == row_count(lake, "merchants")
    assert sorted(stored(lake, "merchants", "id", of=ids)) == [(id,) for id in ids]
    assert_each_offset_is_stored_once(lake, "merchants")


def test_the_sensor_asks_for_one_drain_of_the_table_that_is_behind_and_the_drain_catches_up(
    lake: Settings,
) -> None:
    drain(lake)
    insert_merchants(lake, sensors.DUE.messages)
    make_cut(lake, timeout=timedelta(seconds=LIMIT_SECONDS))
    defs = dg.Definitions(
        assets=dg.load_assets_from_modules([assets]),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=[sensors.drain_raw],
        resources={"settings": lake},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        tick = dg.build_sensor_context(instance, resources={"settings": lake})
        request = sensors.raw_lag(tick)
        assert isinstance(request, dg.RunRequest)
        assert request.asset_selection == [dg.AssetKey(["raw", "merchants"])]
        run = defs.resolve_job_def("drain_raw").execute_in_process(
            run_config=request.run_config, asset_selection=request.asset_selection, instance=instance
        )
        assert run.success
        (materialization,) = run.asset_materializations_for_node("raw")
        assert materialization.metadata["rows_added"].value == sensors.DUE.messages
        assert materialization.metadata["dagster/row_count"].value == row_count(lake, "merchants")
        assert materialization.metadata["lag"].value == 0
        skip = sensors.raw_lag(tick)
    assert isinstance(skip, dg.SkipReason)
    assert skip.skip_message is not None
    assert skip.skip_message.startswith("0 unread")


def test_the_offsets_are_published_for_people_to_look_at(lake: Settings) -> None:
    drain_everything(lake, "merchants")
    consumer = Consumer({"bootstrap.servers": lake.kafka_bootstrap, "group.id": SINK.group})
    try:
        (place,) = consumer.committed([TopicPartition(topic_for("merchants"), 0)], timeout=10)
    finally:
        consumer.close()
    assert place.offset == next_offsets(lake, "merchants")[0]


def test_a_new_nullable_column_flows_without_a_restart_and_a_dropped_one_stops_its_table_alone(
    lake: Settings,
) -> None:
    before = insert_customer(lake)
    drain_everything(lake, "customers")
    with connect(lake) as postgres:
        postgres.execute("ALTER TABLE payments.customers ADD COLUMN nickname text DEFAULT 'none given'")
    migrate(lake)
    after = insert_customer(lake, nickname=None)
    with connect(lake) as postgres:
        postgres.execute("UPDATE payments.customers SET nickname = 'nick' WHERE id = %s", (after,))
    drain_everything(lake, "customers")
    # Once or twice: the connector's first snapshot may read what it also streams.
    assert set(stored(lake, "customers", "nickname", of=[before])) == {(None,)}
    assert stored(lake, "customers", "nickname", of=[after]) == [(None,), ("nick",)]

    with connect(lake) as postgres:
        # The publication's column list depends on it; published again in the transaction, the table has no hole.
        published = published_tables(postgres)
        postgres.execute("ALTER TABLE payments.customers DROP COLUMN nickname CASCADE")
        refresh_replication(postgres, published)
    insert_customer(lake)
    (merchant,) = insert_merchants(lake)
    stopped_at = next_offsets(lake, "customers")
    with pytest.raises(TablesStopped, match="nickname is gone") as stopped:
        drain_everything(lake, "customers", "merchants")
    assert isinstance(stopped.value.errors["customers"], SchemaChanged)
    assert next_offsets(lake, "customers") == stopped_at
    assert stored(lake, "merchants", "id", of=[merchant]) == [(merchant,)]


# From here on each test breaks the topic of a table that no other test reads.


def produce(settings: Settings, table: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    for value in values:
        producer.produce(topic_for(table), value=value, partition=0)
    assert producer.flush(LIMIT_SECONDS) == 0


def test_a_record_that_is_no_change_stops_its_table_where_it_is_and_the_others_go_on(lake: Settings) -> None:
    drain_everything(lake, "disputes", "merchants")
    stored_before = next_offsets(lake, "disputes")
    produce(lake, "disputes", b'{"op": "c", "after": {"id": "4242424242424242"}}')
    ids = insert_merchants(lake)
    with pytest.raises(TablesStopped) as stopped:
        drain_everything(lake, "disputes", "merchants")
    error = stopped.value.errors["disputes"]
    assert isinstance(error, UndecodableRecord)
    assert (error.topic, error.partition, error.offset) == (topic_for("disputes"), 0, stored_before[0])
    assert "4242" not in str(stopped.value)
    assert next_offsets(lake, "disputes") == stored_before
    assert stored(lake, "merchants", "id", of=ids) == [(ids[0],)]


def test_offsets_that_were_deleted_unread_are_refused_with_their_number(lake: Settings) -> None:
    drain_everything(lake, "card_fingerprints")
    begin = next_offsets(lake, "card_fingerprints")[0]
    produce(lake, "card_fingerprints", *[json.dumps({"n": n}).encode() for n in range(3)])
    topic = topic_for("card_fingerprints")
    client = admin(lake)
    deleted = client.delete_records([TopicPartition(topic, 0, begin + 2)])
    assert [answer.result(LIMIT_SECONDS).low_watermark for answer in deleted.values()] == [begin + 2]
    told = r"deleted unread, 2 offsets.*stripe-platform recover card_fingerprints"
    with pytest.raises(TablesStopped, match=told) as stopped:
        drain(lake, ["card_fingerprints"])
    assert isinstance(stopped.value.errors["card_fingerprints"], OffsetsOutOfRange)
    assert next_offsets(lake, "card_fingerprints")[0] == begin


def test_a_topic_that_was_created_again_is_refused(lake: Settings) -> None:
    drain_everything(lake, "refunds")
    client, topic = admin(lake), topic_for("refunds")
    client.delete_topics([topic])[topic].result(LIMIT_SECONDS)
    _wait_until_gone(lake, topic)
    assert ensure_topics(lake) == (topic,)
    _wait_until_known(lake, "refunds")
    with pytest.raises(TablesStopped, match="was created again") as stopped:
        drain(lake, ["refunds"])
    assert isinstance(stopped.value.errors["refunds"], TopicRecreated)


def _wait_until_known(settings: Settings, table: str) -> None:
    """A topic that was just created is for a moment unknown, then without a leader."""
    waiting = threading.Event()
    for _ in range(LIMIT_SECONDS * 10):
        try:
            beginning_offsets(settings, [table])
            topic_ids(settings, [table])
            return
        except (TopicMissing, BrokerUnavailable):
            waiting.wait(0.1)
    raise AssertionError(f"the topic of {table} does not appear")


def _wait_until_gone(settings: Settings, topic: str) -> None:
    waiting = threading.Event()
    for _ in range(LIMIT_SECONDS * 10):
        if topic not in admin(settings).list_topics(timeout=10).topics:
            return
        waiting.wait(0.1)
    raise AssertionError(f"{topic} is still there")
