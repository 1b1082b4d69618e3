"""Monthly partitions come and go on a real PostgreSQL, beside others at work, and no row is lost on the way."""

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import errors, sql

from stripe_platform.oltp import archive, checks
from stripe_platform.oltp.archive import PartitionsNotDetached, detach_expired
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.partition_assets import partitions
from stripe_platform.oltp.partitions import ensure_partitions, month_of, months_to_come
from stripe_platform.oltp.replication import CDC_ROLE, PUBLICATION
from stripe_platform.oltp.table_state import bring_up_to_date
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import PROJECT_ROOT, Settings

Connection = psycopg.Connection
LIMIT_SECONDS = 60
RUNBOOK = PROJECT_ROOT / "docs" / "runbooks" / "stopped_tables.md"
NOW = datetime(2021, 2, 10, tzinfo=UTC)
KEPT = {"charges": 3}


@pytest.fixture(scope="module")
def new_migrated(new_database: Callable[[], Settings]) -> Callable[[], Settings]:
    def make() -> Settings:
        settings = new_database()
        migrate(settings)
        return settings

    return make


@pytest.fixture
def database(new_migrated: Callable[[], Settings]) -> Settings:
    return new_migrated()


@pytest.fixture
def connection(database: Settings) -> Iterator[Connection]:
    """Commits by itself, as the maintenance does."""
    with connect(database, autocommit=True) as connection:
        yield connection


def insert_merchant(connection: Connection) -> uuid.UUID:
    row = connection.execute(
        "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
        "VALUES ('of a test', '5942', 'DE', 'eur') RETURNING id"
    ).fetchone()
    assert row
    merchant: uuid.UUID = row[0]
    return merchant


def insert_charge(connection: Connection, created: datetime, merchant: uuid.UUID | None = None) -> uuid.UUID:
    row = connection.execute(
        "INSERT INTO payments.charges "
        "(merchant_id, amount, amount_captured, currency, status, captured, paid, created) "
        "VALUES (%s, 1000, 1000, 'eur', 'succeeded', true, true, %s) RETURNING id",
        [merchant or insert_merchant(connection), created],
    ).fetchone()
    assert row
    charge: uuid.UUID = row[0]
    return charge


def insert_refund(connection: Connection, charge: uuid.UUID) -> None:
    connection.execute(
        "INSERT INTO payments.refunds (charge_id, charge_created, amount, currency, status) "
        "SELECT id, created, 1, currency, 'succeeded' FROM payments.charges WHERE id = %s",
        [charge],
    )


def values(connection: Connection, query: str, *arguments: object) -> list[object]:
    return [value for (value,) in connection.execute(query.encode(), arguments)]


def partitions_of(connection: Connection, table: str = "charges") -> list[object]:
    return values(
        connection,
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1",
        f"payments.{table}",
    )


def archived(connection: Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT name, table_name, first_created, created_before, row_count FROM archive.detached_partitions ORDER BY 1"
    ).fetchall()


# Months to come


def test_months_are_made_across_the_years_end_for_every_monthly_table_and_only_once(connection: Connection) -> None:
    monthly = [table.name for table in CAPTURED_TABLES if table.monthly]
    months = months_to_come(datetime(2031, 11, 15, tzinfo=UTC))

    made = ensure_partitions(connection, months)

    assert sorted(made) == sorted(
        f"{table}_{month}" for table in monthly for month in ("2031_11", "2031_12", "2032_01", "2032_02")
    )
    assert ensure_partitions(connection, months) == ()
    charge = insert_charge(connection, datetime(2031, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
    assert values(connection, "SELECT tableoid::regclass::text FROM payments.charges WHERE id = %s", charge) == [
        "charges_2031_12"
    ]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2031, 12, 31, 23, 59, tzinfo=UTC),
        datetime(2032, 1, 1, 8, 59, tzinfo=timezone(timedelta(hours=9))),
        datetime(2031, 12, 31, 18, 59, tzinfo=timezone(timedelta(hours=-5))),
    ],
    ids=["in UTC", "next year already in Tokyo", "the evening in New York"],
)
def test_in_the_last_minute_of_the_year_in_utc_it_is_december_and_january_is_to_come(
    connection: Connection, moment: datetime
) -> None:
    made = ensure_partitions(connection, months_to_come(moment))

    assert [name for name in made if name.startswith("charges")] == [
        f"charges_{month}" for month in ("2031_12", "2032_01", "2032_02", "2032_03")
    ]
    place = "SELECT tableoid::regclass::text FROM payments.charges WHERE id = %s"
    for later, month in ((timedelta(0), "2031_12"), (timedelta(minutes=1), "2032_01")):
        assert values(connection, place, insert_charge(connection, moment + later)) == [f"charges_{month}"]


def test_of_two_who_make_a_month_at_once_the_second_finds_it_there(database: Settings, connection: Connection) -> None:
    month = datetime(2031, 5, 1, tzinfo=UTC)

    def make_beside() -> tuple[str, ...]:
        with connect(database, autocommit=True) as second:
            return ensure_partitions(second, [month])

    with ThreadPoolExecutor() as pool, connect(database) as first:
        made = ensure_partitions(first, [month])
        beside = pool.submit(make_beside)
        waits = (
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: values(connection, waits) == [True])
        first.commit()
        assert beside.result(LIMIT_SECONDS) == ()
    assert len(made) == 3
    assert partitions_of(connection) == ["charges_2031_05", "charges_default"]


def test_rows_that_come_while_their_month_is_made_are_all_there_and_in_it(database: Settings) -> None:
    month = datetime(2031, 5, 1, tzinfo=UTC)
    stop = threading.Event()

    def insert_until_stopped() -> list[uuid.UUID]:
        inserted = []
        with connect(database, autocommit=True) as writer:
            merchant = insert_merchant(writer)
            while not stop.is_set():
                inserted.append(insert_charge(writer, month + timedelta(days=3), merchant))
        return inserted

    counted = "SELECT count(*) > 200 FROM payments.charges"
    with connect(database, autocommit=True) as maker, ThreadPoolExecutor() as pool:
        writers = [pool.submit(insert_until_stopped) for _ in range(2)]
        try:
            wait_until(lambda: values(maker, counted) == [True])
            made = ensure_partitions(maker, [month])
            before = values(maker, "SELECT count(*) FROM payments.charges")
            wait_until(lambda: values(maker, "SELECT count(*) FROM payments.charges") > before)
        finally:
            stop.set()
        inserted = [charge for writer in writers for charge in writer.result(LIMIT_SECONDS)]
        assert "charges_2031_05" in made
        assert sorted(map(str, inserted)) == sorted(map(str, values(maker, "SELECT id FROM payments.charges_2031_05")))
        assert values(maker, "SELECT count(*) FROM payments.charges_default") == [0]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


@pytest.mark.parametrize("maintenance", ["make", "detach"])
def test_payments_go_on_while_the_maintenance_waits_for_a_long_transaction(
    database: Settings, connection: Connection, maintenance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_platform.oltp.partitions.LOCK_LIMIT", timedelta(seconds=LIMIT_SECONDS))
    ensure_partitions(connection, [datetime(2020, 10, 1, tzinfo=UTC)])
    merchant = insert_merchant(connection)
    kinds: dict[str, Callable[[Connection], object]] = {
        "make": lambda maintainer: ensure_partitions(maintainer, [datetime(2032, 1, 1, tzinfo=UTC)]),
        "detach": lambda maintainer: detach_expired(maintainer, NOW, KEPT),
    }

    def maintain() -> object:
        with connect(database, autocommit=True) as maintainer:
            return kinds[maintenance](maintainer)

    with ThreadPoolExecutor() as pool, connect(database) as reader:
        reader.execute("SELECT FROM payments.charges LIMIT 1")
        done = pool.submit(maintain)
        waits = (
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: values(connection, waits) == [True])
        connection.execute("SET lock_timeout = '10s'")
        insert_charge(connection, NOW, merchant)
        assert not done.done()
        reader.rollback()
        assert done.result(LIMIT_SECONDS)


# Retention


def test_what_is_past_its_retention_is_archived_with_its_rows_and_recorded(connection: Connection) -> None:
    # Kept: three whole months before this February, and February.
    created = [datetime(2020, month, 15, tzinfo=UTC) for month in (9, 10, 11)] + [NOW]
    ensure_partitions(connection, created)
    charges = [insert_charge(connection, moment) for moment in created]
    row = "SELECT to_jsonb(row)::text FROM {} AS row WHERE id = %s"
    before = values(connection, row.format("payments.charges"), charges[1])

    detached = detach_expired(connection, NOW, KEPT)

    assert [(each.name, each.rows) for each in detached] == [("charges_2020_09", 1), ("charges_2020_10", 1)]
    assert partitions_of(connection) == ["charges_2020_11", "charges_2021_02", "charges_default"]
    assert values(connection, row.format("archive.charges_2020_10"), charges[1]) == before
    assert values(connection, "SELECT id FROM payments.charges ORDER BY created") == charges[2:]
    first, second, third = (datetime(2020, month, 1, tzinfo=UTC) for month in (9, 10, 11))
    assert archived(connection) == [
        ("charges_2020_09", "charges", first, second, 1),
        ("charges_2020_10", "charges", second, third, 1),
    ]


def test_maintaining_twice_changes_nothing(connection: Connection) -> None:
    ensure_partitions(connection, [datetime(2020, 1, 1, tzinfo=UTC), *months_to_come(NOW)])
    detach_expired(connection, NOW, KEPT)
    state = (
        "SELECT (SELECT json_agg(d ORDER BY name) FROM archive.detached_partitions AS d)::text || "
        "(SELECT json_agg(c.xmin::text ORDER BY oid) FROM pg_class AS c)::text"
    )
    before = values(connection, state)

    assert ensure_partitions(connection, months_to_come(NOW)) == ()
    assert detach_expired(connection, NOW, KEPT) == ()
    assert values(connection, state) == before


def test_a_table_without_a_retention_keeps_its_months(connection: Connection) -> None:
    ensure_partitions(connection, [datetime(1999, 1, 1, tzinfo=UTC)])

    detach_expired(connection, NOW)

    assert "charges_1999_01" in partitions_of(connection)
    assert "balance_transactions_1999_01" in partitions_of(connection, "balance_transactions")


def test_an_archived_month_does_not_hold_back_the_rows_it_named(connection: Connection) -> None:
    ensure_partitions(connection, [datetime(2020, 1, 1, tzinfo=UTC)])
    merchant = insert_merchant(connection)
    insert_charge(connection, datetime(2020, 1, 1, tzinfo=UTC), merchant)
    detach_expired(connection, NOW, KEPT)

    connection.execute("DELETE FROM payments.merchants WHERE id = %s", [merchant])

    assert values(connection, "SELECT merchant_id FROM archive.charges_2020_01") == [merchant]


def test_a_month_that_is_made_and_archived_again_for_a_late_row_stays_apart(connection: Connection) -> None:
    month = datetime(2020, 1, 1, tzinfo=UTC)
    charges = []
    for _ in range(2):
        ensure_partitions(connection, [month])
        charges.append(insert_charge(connection, month))
        detach_expired(connection, NOW, KEPT)

    assert [name for name, *_ in archived(connection)] == ["charges_2020_01", "charges_2020_01_2"]
    assert values(connection, "SELECT id FROM archive.charges_2020_01") == charges[:1]
    assert values(connection, "SELECT id FROM archive.charges_2020_01_2") == charges[1:]


def test_an_archived_month_is_put_back_as_the_runbook_says_and_archived_again(connection: Connection) -> None:
    """docs/runbooks/stopped_tables.md, before `recover`: only what is in the table is read again."""
    month = datetime(2025, 1, 1, tzinfo=UTC)
    ensure_partitions(connection, [month])
    connection.execute(
        "INSERT INTO payments.events (merchant_id, type, object_type, object_id, api_version, payload, created) "
        "VALUES (%s, 'charge.succeeded', 'charge', gen_random_uuid(), '1', '{}', %s)",
        [insert_merchant(connection), month],
    )
    now, kept = datetime(2026, 3, 1, tzinfo=UTC), {"events": 13}
    (detached,) = detach_expired(connection, now, kept)
    assert values(connection, "SELECT id FROM payments.events") == []
    (put_back,) = re.findall("```sql\n(.*?)```", RUNBOOK.read_text("utf-8"), re.DOTALL)

    with connection.transaction():
        connection.execute(put_back)

    assert len(values(connection, "SELECT id FROM payments.events WHERE created = %s", month)) == 1
    assert [(each.name, each.rows) for each in detach_expired(connection, now, kept)] == [(detached.name, 1)]


def test_a_month_that_refunds_point_into_stays_is_named_with_them_and_the_others_go(connection: Connection) -> None:
    created = [datetime(2020, month, 1, tzinfo=UTC) for month in (1, 2, 3)]
    ensure_partitions(connection, created)
    charges = [insert_charge(connection, moment) for moment in created]
    insert_refund(connection, charges[1])

    with pytest.raises(
        PartitionsNotDetached, match=r"charges_2020_02 was not detached: rows of payments\.refunds .*kept_months"
    ) as kept:
        detach_expired(connection, NOW, KEPT)

    assert str(charges[1]) not in str(kept.value)
    assert [each.name for each in kept.value.detached] == ["charges_2020_01", "charges_2020_03"]
    assert values(connection, "SELECT id FROM payments.charges") == [charges[1]]


def test_a_month_that_cannot_be_detached_says_why_and_goes_the_next_time(
    database: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_platform.oltp.partitions.LOCK_LIMIT", timedelta(seconds=0.1))
    ensure_partitions(connection, [datetime(2020, 1, 1, tzinfo=UTC)])
    charge = insert_charge(connection, datetime(2020, 1, 1, tzinfo=UTC))
    with connect(database) as reader:
        reader.execute("SELECT FROM payments.charges LIMIT 1")
        with pytest.raises(PartitionsNotDetached, match=r"charges_2020_01 was not detached: another transaction"):
            detach_expired(connection, NOW, KEPT)
    assert (archived(connection), values(connection, "SELECT id FROM payments.charges")) == ([], [charge])
    assert [each.name for each in detach_expired(connection, NOW, KEPT)] == ["charges_2020_01"]


@pytest.mark.parametrize(
    "line", ["LOCK TABLE", "DETACH PARTITION", "DROP CONSTRAINT", "SET SCHEMA", "INSERT INTO archive"]
)
def test_a_crash_at_any_line_leaves_what_the_next_run_mends(
    database: Settings, connection: Connection, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_partitions(connection, [datetime(2020, 1, 1, tzinfo=UTC)])
    charge = insert_charge(connection, datetime(2020, 1, 1, tzinfo=UTC))
    with connect(database, autocommit=True) as dying:
        execute = dying.execute

        def execute_and_die(query: Any, *arguments: Any) -> object:
            text = query.as_string(connection) if isinstance(query, sql.Composed) else query
            result = execute(query, *arguments)
            if line in text:
                connection.execute("SELECT pg_terminate_backend(%s)", [dying.info.backend_pid])
            return result

        monkeypatch.setattr(dying, "execute", execute_and_die)
        with pytest.raises(psycopg.OperationalError):
            detach_expired(dying, NOW, KEPT)

    assert (archived(connection), values(connection, "SELECT id FROM payments.charges")) == ([], [charge])
    assert [(each.name, each.rows) for each in detach_expired(connection, NOW, KEPT)] == [("charges_2020_01", 1)]


def test_the_change_stream_hears_nothing_of_it_and_its_role_cannot_read_it(
    database: Settings, connection: Connection
) -> None:
    ensure_partitions(connection, [datetime(2020, 1, 1, tzinfo=UTC)])
    insert_charge(connection, datetime(2020, 1, 1, tzinfo=UTC))
    slot = f"slot_{uuid.uuid4().hex}"
    # The test servers commit without a flush; only what is flushed can be decoded.
    connection.execute("SET synchronous_commit = on")
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    try:
        detach_expired(connection, NOW, KEPT)
        connection.execute("DELETE FROM archive.charges_2020_01")
        insert_merchant(connection)
        told = values(
            connection,
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
            "'proto_version', '1', 'publication_names', %s)",
            slot,
            PUBLICATION,
        )
    finally:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
    rows = [message for message in told if isinstance(message, bytes) and message[:1] in (b"I", b"U", b"D", b"T")]
    assert len(rows) == 1
    assert b"of a test" in rows[0]
    with (
        psycopg.connect(database.postgres_conninfo, user=CDC_ROLE, password=database.secret("cdc_password")) as as_cdc,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        as_cdc.execute("SELECT FROM archive.charges_2020_01")


# In Dagster


def test_the_asset_tells_what_was_made_and_detached(database: Settings, connection: Connection) -> None:
    (table, _), *_ = archive.KEPT_MONTHS.items()
    ensure_partitions(connection, [datetime(2001, 1, 1, tzinfo=UTC)])
    metadata = materialized(database)
    this_month = month_of(datetime.now(UTC))
    made = metadata["made"].value
    assert isinstance(made, list)
    assert f"{table}_{this_month:%Y_%m}" in made
    assert metadata["detached"].value == {f"{table}_2001_01": 0}
    again = materialized(database)
    assert (again["made"].value, again["detached"].value, again["rows_detached"].value) == ([], {}, 0)


def materialized(settings: Settings) -> dict[str, dg.MetadataValue]:
    result = dg.materialize([partitions], resources={"settings": settings})
    (event,) = result.get_asset_materialization_events()
    return dict(event.materialization.metadata)


def test_every_monthly_table_has_a_check_of_its_default_partition_that_fails_on_a_row_there(
    database: Settings, connection: Connection
) -> None:
    list(bring_up_to_date(database, []))
    by_table = {
        key.asset_key.path[-1]: check for check in checks.default_partitions_are_empty for key in check.check_keys
    }
    assert by_table.keys() == {table.name for table in CAPTURED_TABLES if table.monthly}
    assert verdict(by_table["charges"], database)
    insert_charge(connection, datetime(1999, 1, 1, tzinfo=UTC))
    assert not verdict(by_table["charges"], database)


def verdict(check: dg.AssetChecksDefinition, settings: Settings) -> bool:
    result = check(settings=settings)
    assert isinstance(result, dg.AssetCheckResult)
    return result.passed
