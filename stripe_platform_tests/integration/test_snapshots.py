"""Snapshots of tables whose rows are older than the connector: taken while traffic runs, and through kills."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from stripe_platform.cdc import checks
from stripe_platform.cdc.assets import take_tables
from stripe_platform.cdc.broker import TopicMissing, admin, connection
from stripe_platform.cdc.connector import CONNECTOR, connector_state, register
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.offsets import last_stable_offsets, topic_ids
from stripe_platform.cdc.snapshot import (
    NotCaptured,
    SnapshotNotTaken,
    SnapshotProgress,
    pending_snapshots,
    take_snapshots,
)
from stripe_platform.cdc.snapshot_registry import PersonalColumnsNotLast
from stripe_platform.cdc.topics import ensure_topics, topic_for
from stripe_platform.local.connect import CONNECT
from stripe_platform.local.environment import environment
from stripe_platform.local.stack import server_states
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import MIGRATIONS, migrate
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.drain import drain
from stripe_platform.raw.unknown_values import rows_with_unknown_values
from stripe_platform.settings import PROJECT_ROOT, Settings

CUSTOMERS = 30_000
CHARGES = 5_000
LIMIT = timedelta(seconds=120)
# Longer than PostgreSQL keeps within a row, and not compressible.
LARGE_METADATA = json.dumps({"note": secrets.token_hex(8000)})

Value = dict[str, Any]


@pytest.fixture(scope="module")
def settings(new_stack: Callable[[], Settings]) -> Settings:
    """A stack whose rows are all older than its connector, which is registered and has taken them."""
    settings = new_stack()
    migrate(settings)
    with connect(settings) as postgres:
        merchant = new_merchant(postgres, "old")
        postgres.execute(
            "INSERT INTO payments.customers (merchant_id, country) SELECT %s, 'FR' FROM generate_series(1, %s)",
            (merchant, CUSTOMERS),
        )
        # A key with a time in it, in more than one chunk.
        postgres.execute(
            "INSERT INTO payments.charges (merchant_id, amount, currency, status, paid, created) "
            "SELECT %s, 1000, 'eur', 'succeeded', true, now() - n * interval '1 minute' "
            "FROM generate_series(1, %s) AS n",
            (merchant, CHARGES),
        )
    register(settings)
    make_cut(settings, timeout=LIMIT)
    return settings


@pytest.fixture
def postgres(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings, autocommit=True) as connection:
        yield connection


def new_merchant(postgres: psycopg.Connection, name: str, metadata: str = "{}") -> str:
    ((merchant,),) = postgres.execute(
        "INSERT INTO payments.merchants (business_name, mcc, country, default_currency, metadata) "
        "VALUES (%s, '5411', 'FR', 'eur', %s) RETURNING id::text",
        (name, metadata),
    ).fetchall()
    return str(merchant)


def values(settings: Settings, topic: str, after: dict[int, int] | None = None) -> list[Value]:
    """Every committed change in the topic, by partition in order of offset."""
    consumer = Consumer(
        connection(settings)
        | {
            "group.id": "stripe-platform-test",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, (after or {}).get(partition, 0)) for partition in partitions])
    found: list[Value] = []
    ends = 0
    while ends < len(partitions):
        record = consumer.poll(10)
        assert record is not None, f"{topic} did not come to its end"
        if record.error():
            ends += 1
        elif value := record.value():
            found.append(json.loads(value))
    consumer.close()
    return found


def operations(settings: Settings, table: str, after: dict[int, int] | None = None) -> Counter[str]:
    return Counter(value["op"] for value in values(settings, topic_for(table), after))


def latest(changes: list[Value]) -> dict[str, Value]:
    """The rows that the changes come to: the last of a key wins, a delete removes it."""
    rows: dict[str, Value] = {}
    for change in changes:
        if change["op"] == "d":
            rows.pop(change["before"]["id"], None)
        else:
            rows[change["after"]["id"]] = change["after"]
    return rows


def until(is_so: Callable[[], bool], limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.1)


def requests(postgres: psycopg.Connection) -> int:
    ((count,),) = postgres.execute("SELECT count(*) FROM cdc.signals WHERE type = 'execute-snapshot'").fetchall()
    return int(count)


def kill_connect(settings: Settings) -> None:
    (pid,) = (server.pid for server in server_states(settings) if server.name == CONNECT.name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@contextmanager
def traffic(settings: Settings) -> Iterator[Counter[str]]:
    """Updates, deletes and inserts of customers all over the table, each committed by itself, until the block ends."""
    done: Counter[str] = Counter()
    is_over = Event()

    def write() -> None:
        with connect(settings, autocommit=True) as postgres:
            ids = [row for (row,) in postgres.execute("SELECT id FROM payments.customers ORDER BY md5(id::text)")]
            for number, customer in enumerate(ids):
                if is_over.is_set():
                    return
                if number % 3:
                    postgres.execute("UPDATE payments.customers SET country = 'DE' WHERE id = %s", (customer,))
                    done["u"] += 1
                else:
                    postgres.execute("DELETE FROM payments.customers WHERE id = %s", (customer,))
                    postgres.execute("INSERT INTO payments.customers (country) VALUES ('IT')")
                    done["d"] += 1

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            yield done
        finally:
            is_over.set()
            writing.result()


def assert_topic_equals_table(settings: Settings, postgres: psycopg.Connection) -> None:
    make_cut(settings)
    in_topic = {key: row["country"] for key, row in latest(values(settings, topic_for("customers"))).items()}
    assert in_topic == dict(postgres.execute("SELECT id::text, country FROM payments.customers").fetchall())


def test_every_row_from_before_the_connector_comes_once_by_its_snapshot(settings: Settings) -> None:
    assert operations(settings, "customers") == {"r": CUSTOMERS}
    assert operations(settings, "charges") == {"r": CHARGES}
    assert pending_snapshots(settings) == ()
    result = checks.every_table_has_been_snapshotted(settings=settings)
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed


def test_what_is_taken_is_not_taken_again_unless_asked(settings: Settings, postgres: psycopg.Connection) -> None:
    before = requests(postgres)
    assert take_snapshots(settings, limit=LIMIT) == ()
    assert take_snapshots(settings, ["merchants"], limit=LIMIT) == ()
    register(settings)
    assert requests(postgres) == before
    start = last_stable_offsets(settings, ["charges", "merchants"])
    (taken,) = take_snapshots(settings, ["charges"], again=True, limit=LIMIT)
    # Below the last stable offset when it returns: no wait for a cut.
    assert operations(settings, "charges", start["charges"]) == {"r": CHARGES}
    assert (taken.table, taken.rows) == ("charges", CHARGES)
    assert taken.topic_id == topic_ids(settings, ["charges"])["charges"]
    assert operations(settings, "merchants", start["merchants"]) == {}


def test_a_snapshot_goes_on_where_connect_was_killed_and_traffic_comes_out_row_by_row(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    start = last_stable_offsets(settings, ["customers"])["customers"]
    killed_at: list[int] = []

    def kill_in_the_middle(progress: SnapshotProgress) -> None:
        if not killed_at and progress.rows >= CUSTOMERS // 4:
            kill_connect(settings)
            killed_at.append(progress.rows)

    with traffic(settings) as done:
        (taken,) = take_snapshots(settings, ["customers"], again=True, limit=LIMIT, progress=kill_in_the_middle)
    assert 0 < killed_at[0] < CUSTOMERS
    assert min(done["u"], done["d"]) > 0
    assert taken.table == "customers"
    assert_topic_equals_table(settings, postgres)
    read = operations(settings, "customers", start)["r"]
    # Every chunk once: begun anew from the first row, a quarter would have come twice.
    ((rows,),) = postgres.execute("SELECT count(*) FROM payments.customers").fetchall()
    assert 0 < read < rows + killed_at[0] // 2


def test_a_snapshot_whose_waiting_process_was_killed_is_waited_for_and_not_asked_for_twice(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    before = requests(postgres)
    script = (
        "from datetime import timedelta\n"
        "from stripe_platform.cdc.snapshot import take_snapshots\n"
        "from stripe_platform.settings import load_settings\n"
        "take_snapshots(load_settings(), ['customers'], again=True, limit=timedelta(seconds=60),\n"
        "    progress=lambda progress: print(progress.rows, flush=True))\n"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=PROJECT_ROOT,
        env=os.environ | environment(settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout is not None
    first = int(waiting.stdout.readline())
    waiting.kill()
    waiting.wait()
    waiting.stdout.close()
    assert 0 < first < CUSTOMERS
    taken = take_snapshots(settings, ["customers"], again=True, limit=LIMIT)
    assert [each.table for each in taken] == ["customers"]
    assert requests(postgres) == before + 1
    assert_topic_equals_table(settings, postgres)


def test_a_topic_that_was_made_anew_is_taken_again_before_the_next_cut_and_no_other(settings: Settings) -> None:
    others = last_stable_offsets(settings, ["countries"])["countries"]
    (deletion,) = admin(settings).delete_topics([topic_for("currencies")]).values()
    deletion.result(10)
    until(lambda: topic_for("currencies") in ensure_topics(settings), 20, "the topic made anew")
    until(lambda: are_pending(settings, "currencies"), 20, "a pending snapshot")
    result = checks.every_table_has_been_snapshotted(settings=settings)
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    make_cut(settings)
    assert operations(settings, "currencies")["r"] > 0
    assert operations(settings, "countries", others) == {}


def are_pending(settings: Settings, *tables: str) -> bool:
    try:
        return pending_snapshots(settings) == tables
    except TopicMissing:
        # Made, and not yet known to every part of the broker.
        return False


def test_a_request_that_the_connector_knows_nothing_of_is_made_anew(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    with postgres.transaction():
        postgres.execute("INSERT INTO cdc.signals VALUES ('unheard', 'log', '{\"message\": \"of a test\"}')")
        postgres.execute(
            "INSERT INTO cdc.snapshots (signal_id, table_name, topic_id) VALUES ('unheard', 'countries', %s)",
            (topic_ids(settings, ["countries"])["countries"],),
        )
    start = last_stable_offsets(settings, ["countries"])["countries"]
    (taken,) = take_snapshots(settings, ["countries"], again=True, limit=LIMIT)
    assert taken.rows == operations(settings, "countries", start)["r"] > 0
    found = postgres.execute("SELECT failure FROM cdc.snapshots WHERE signal_id = 'unheard'").fetchall()
    assert found == [("LOST",)]


def test_time_that_is_over_and_a_halted_connector_are_told_with_table_cause_and_remedy(settings: Settings) -> None:
    httpx.put(f"{settings.connect_url}/connectors/{CONNECTOR}/pause", trust_env=False)
    try:
        until(lambda: not connector_state(settings).is_running, 10, "a paused connector")
        with pytest.raises(SnapshotNotTaken, match=r"snapshot of countries after .*PAUSED.*`stripe-platform snapshot`"):
            take_snapshots(settings, ["countries"], again=True, limit=LIMIT)
    finally:
        register(settings)
    # The request that the paused connector did not read: it would count for the next one.
    assert take_snapshots(settings, ["countries"], again=True, limit=LIMIT)
    with pytest.raises(SnapshotNotTaken, match=r"snapshot of countries after \d+ s"):
        take_snapshots(settings, ["countries"], again=True, limit=timedelta(0))
    assert take_snapshots(settings, ["countries"], again=True, limit=LIMIT)


def test_a_table_with_a_column_behind_a_personal_one_is_refused_with_the_remedy_and_no_other_table(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    before = requests(postgres)
    start = last_stable_offsets(settings, ["countries"])["countries"]
    postgres.execute("ALTER TABLE payments.reviews ADD COLUMN verdict text")
    try:
        with pytest.raises(PersonalColumnsNotLast, match=r"reviews: its column verdict .* moves the personal columns"):
            take_snapshots(settings, ["reviews", "countries"], again=True, limit=LIMIT)
    finally:
        postgres.execute("ALTER TABLE payments.reviews DROP COLUMN verdict")
    assert requests(postgres) == before + 1
    assert operations(settings, "countries", start)["r"] > 0


def test_a_table_that_is_not_captured_is_refused_by_name(settings: Settings) -> None:
    with pytest.raises(NotCaptured, match="not a captured table: chargez"):
        take_snapshots(settings, ["chargez"], limit=LIMIT)


def test_a_value_left_out_by_an_update_within_a_chunk_is_found_unknown_and_comes_with_another_snapshot(
    settings: Settings, postgres: psycopg.Connection
) -> None:
    """Debezium drops the row that it read when an update of it is committed meanwhile, and that has no large value."""
    with postgres.transaction():
        # Never heard of before: the topic has no earlier value of it.
        postgres.execute("SET LOCAL session_replication_role = replica")
        postgres.execute("ALTER PUBLICATION stripe_platform SET (publish = '')")
        merchant = new_merchant(postgres, "large", LARGE_METADATA)
        # Not by the migrator, who would call it a hole.
        postgres.execute("ALTER PUBLICATION stripe_platform SET (publish = 'insert, update, delete, truncate')")
    with ThreadPoolExecutor(1) as pool:
        with connect(settings) as holding:
            holding.execute("LOCK TABLE payments.merchants IN ACCESS EXCLUSIVE MODE")
            taking = pool.submit(take_snapshots, settings, ["merchants"], again=True, limit=LIMIT)
            until(lambda: is_waited_for(postgres, "merchants"), 20, "the connector at the table, its window open")
            holding.execute("UPDATE payments.merchants SET business_name = 'changed' WHERE id = %s", (merchant,))
        taking.result()
    make_cut(settings)
    of_merchant = [v for v in values(settings, topic_for("merchants")) if v["after"] and v["after"]["id"] == merchant]
    assert [v["op"] for v in of_merchant] == ["u"]
    assert of_merchant[0]["after"]["metadata"] == settings.secret("toast_placeholder")
    drain(settings, ["merchants"])
    assert rows_with_unknown_values(settings, "merchants") == 1
    take_snapshots(settings, ["merchants"], again=True, limit=LIMIT)
    drain(settings, ["merchants"])
    assert rows_with_unknown_values(settings, "merchants") == 0


def is_waited_for(postgres: psycopg.Connection, table: str) -> bool:
    waiting = "SELECT FROM pg_locks INNER JOIN pg_class ON pg_class.oid = relation WHERE relname = %s AND NOT granted"
    return postgres.execute(waiting, (table,)).fetchone() is not None


def test_the_job_s_step_shows_progress_and_materializes_the_topic_of_each_table_taken(settings: Settings) -> None:
    @dg.job(resource_defs={"settings": dg.ResourceDefinition.hardcoded_resource(settings)})
    def taking() -> None:
        take_tables()

    result = taking.execute_in_process(
        run_config={"ops": {"take_tables": {"config": {"tables": ["customers"], "again": True}}}}
    )
    (made,) = result.asset_materializations_for_node("take_tables")
    assert made.asset_key == dg.AssetKey(["cdc", "customers"])
    rows = made.metadata["rows"].value
    assert isinstance(rows, int)
    assert rows > 0
    observed = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    assert 0 < len(observed) <= 25


# Last: the parent process does not know the table that is added.
def test_a_captured_table_is_added_by_a_migration_and_one_entry_while_traffic_runs_on_others(
    settings: Settings, postgres: psycopg.Connection, tmp_path: Path
) -> None:
    for file in MIGRATIONS.iterdir():
        (tmp_path / file.name).write_text(file.read_text("utf-8"))
    (tmp_path / "9999_vouchers.sql").write_text(
        "CREATE TABLE payments.vouchers (id text PRIMARY KEY, amount bigint NOT NULL);\n"
    )
    # Rows from before the table was captured: its migration came with an earlier version.
    migrate(settings, tmp_path)
    postgres.execute("INSERT INTO payments.vouchers SELECT 'old ' || n, n FROM generate_series(1, 3000) AS n")
    start = last_stable_offsets(settings, [table.name for table in CAPTURED_TABLES])
    with traffic(settings) as done:
        added = run_with_vouchers(
            settings,
            "from datetime import timedelta\n"
            "from pathlib import Path\n"
            "from stripe_platform.cdc.connector import register\n"
            "from stripe_platform.cdc.cut import make_cut\n"
            "from stripe_platform.cdc.snapshot import pending_snapshots\n"
            "from stripe_platform.oltp.connection import connect\n"
            "from stripe_platform.oltp.migrate import migrate\n"
            "settings = load_settings()\n"
            f"assert migrate(settings, Path({str(tmp_path)!r})).replication_changed\n"
            "register(settings)\n"
            "with connect(settings) as postgres:\n"
            "    postgres.execute(\"INSERT INTO payments.vouchers VALUES ('new', 1)\")\n"
            "    postgres.execute(\"DELETE FROM payments.vouchers WHERE id = 'old 1'\")\n"
            "make_cut(settings, timeout=timedelta(seconds=90))\n"
            "print(pending_snapshots(settings))\n",
        )
    assert added.strip() == "()"
    assert sum(done.values()) > 0
    vouchers = latest(values(settings, "stripe.payments.vouchers"))
    assert {key: row["amount"] for key, row in vouchers.items()} == {f"old {n}": n for n in range(2, 3001)} | {"new": 1}
    taken_anew = {table.name for table in CAPTURED_TABLES if operations(settings, table.name, start[table.name])["r"]}
    assert taken_anew == set()
    register(settings)
    assert_topic_equals_table(settings, postgres)


def run_with_vouchers(settings: Settings, script: str) -> str:
    """What the script prints in a process whose list of captured tables has one entry more."""
    added = (
        "from stripe_platform.oltp import tables\n"
        "vouchers = tables.CapturedTable('vouchers', 'Money given.', key=('id',))\n"
        "tables.CAPTURED_TABLES = (*tables.CAPTURED_TABLES, vouchers)\n"
        "tables.TABLES_BY_NAME['vouchers'] = vouchers\n"
        "from stripe_platform.settings import load_settings\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", added + script],
        cwd=PROJECT_ROOT,
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
