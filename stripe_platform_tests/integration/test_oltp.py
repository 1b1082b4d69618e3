"""The payments tables on a real PostgreSQL: each test in a database of its own on the shared server, rolled back."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from psycopg import errors, sql

from stripe_platform.oltp import assets, checks, ledger
from stripe_platform.oltp.catalog import captured_columns
from stripe_platform.oltp.connection import PostgresUnavailable, connect
from stripe_platform.oltp.migrate import MIGRATIONS, MigrationError, MigrationFailed, migrate
from stripe_platform.oltp.partitions import PartitionNotMade, ensure_partitions, month_of, next_month
from stripe_platform.oltp.replication import CDC_ROLE, PUBLICATION
from stripe_platform.oltp.table_state import bring_up_to_date, row_count
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.privacy.columns import InvalidPersonalColumns, personal_columns
from stripe_platform.settings import Settings

NewDatabase = Callable[[], Settings]
Connection = psycopg.Connection


@pytest.fixture(scope="module")
def database(new_database: NewDatabase) -> Settings:
    settings = new_database()
    migrate(settings)
    return settings


@pytest.fixture
def connection(database: Settings) -> Iterator[Connection]:
    with connect(database) as connection:
        yield connection
        connection.rollback()


def insert(connection: Connection, table: str, **values: object) -> None:
    connection.execute(
        sql.SQL("INSERT INTO payments.{} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(map(sql.Placeholder, values)),
        ),
        values,
    )


def insert_charge(connection: Connection, **values: object) -> tuple[uuid.UUID, datetime]:
    """A captured charge of 10.00 EUR, other than `values` say; its key."""
    merchant, key = uuid.uuid4(), (uuid.uuid4(), datetime.now(UTC))
    insert(
        connection,
        "merchants",
        id=merchant,
        business_name="Birch Books",
        mcc="5942",
        country="DE",
        default_currency="eur",
    )
    charge = {
        "id": key[0],
        "created": key[1],
        "merchant_id": merchant,
        "amount": 1000,
        "amount_captured": 1000,
        "currency": "eur",
        "status": "succeeded",
        "captured": True,
        "paid": True,
    } | values
    insert(connection, "charges", **charge)
    return charge["id"], charge["created"]  # type: ignore[return-value]


def insert_refund(connection: Connection, charge: tuple[uuid.UUID, datetime], **values: object) -> uuid.UUID:
    refund = {"id": uuid.uuid4(), "amount": 400, "currency": "eur", "status": "succeeded"} | values
    insert(connection, "refunds", charge_id=charge[0], charge_created=charge[1], **refund)
    return refund["id"]  # type: ignore[return-value]


def insert_dispute(connection: Connection, charge: tuple[uuid.UUID, datetime], **values: object) -> uuid.UUID:
    dispute = {
        "id": uuid.uuid4(),
        "amount": 1000,
        "currency": "eur",
        "status": "needs_response",
        "reason": "fraudulent",
    } | values
    insert(connection, "disputes", charge_id=charge[0], charge_created=charge[1], **dispute)
    return dispute["id"]  # type: ignore[return-value]


def one(connection: Connection, query: str, *values: object) -> tuple[object, ...]:
    (row,) = connection.execute(query.encode(), values).fetchall()
    return row


# Money


@pytest.mark.parametrize(
    ("wrong", "constraint"),
    [
        ({"amount": -1, "amount_captured": 0, "captured": False}, "captured_within_amount"),
        ({"amount_captured": 1001}, "captured_within_amount"),
        ({"amount_captured": -1}, "captured_within_amount"),
        ({"amount_refunded": 1001}, "refunded_within_captured"),
        ({"amount_refunded": 1000}, "refunded_means_in_full"),
        ({"refunded": True}, "refunded_means_in_full"),
        ({"captured": False}, "captured_amount_needs_capture"),
        ({"status": "pending", "paid": False}, "only_a_success_is_captured"),
        ({"paid": False}, "paid_means_succeeded"),
        ({"failure_code": "card_declined"}, "failure_has_a_code"),
        ({"decline_code": "lost_card"}, "decline_is_a_failure"),
        ({"currency": "xxx"}, "charges_currency_fkey"),
        ({"status": "done"}, "charges_status_check"),
    ],
)
def test_a_wrong_charge_is_refused(connection: Connection, wrong: dict[str, object], constraint: str) -> None:
    with pytest.raises(errors.IntegrityError) as refused:
        insert_charge(connection, **wrong)
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("wrong", "constraint"),
    [
        ({"net": 971}, "net_is_amount_less_fee"),
        ({"amount": -1000, "net": -1059}, "a_charge_adds"),
        ({"type": "refund", "reporting_category": "refund"}, "a_refund_takes"),
        ({"source_type": "charge"}, "source_has_type_and_id"),
        ({"available_on": datetime(2020, 1, 1, tzinfo=UTC)}, "not_available_before_created"),
    ],
)
def test_a_wrong_movement_is_refused(connection: Connection, wrong: dict[str, object], constraint: str) -> None:
    with pytest.raises(errors.CheckViolation) as refused:
        insert_movement(connection, **wrong)
    assert refused.value.diag.constraint_name == constraint


def insert_movement(connection: Connection, **values: object) -> None:
    charge, _ = insert_charge(connection)
    (merchant,) = one(connection, "SELECT merchant_id FROM payments.charges WHERE id = %s", charge)
    movement = {
        "merchant_id": merchant,
        "amount": 1000,
        "fee": 59,
        "net": 941,
        "currency": "eur",
        "type": "charge",
        "reporting_category": "charge",
        "status": "pending",
        "available_on": datetime.now(UTC) + timedelta(days=2),
    } | values
    insert(connection, "balance_transactions", **movement)


def test_refunds_are_carried_to_the_charge_and_a_failed_one_is_taken_back(connection: Connection) -> None:
    charge = insert_charge(connection)
    insert_refund(connection, charge, amount=400)
    second = insert_refund(connection, charge, amount=600)
    state = "SELECT amount_refunded, refunded FROM payments.charges WHERE id = %s"

    assert one(connection, state, charge[0]) == (1000, True)
    connection.execute("UPDATE payments.refunds SET status = 'failed' WHERE id = %s", [second])
    assert one(connection, state, charge[0]) == (400, False)
    connection.execute("DELETE FROM payments.refunds WHERE charge_id = %s", [charge[0]])
    assert one(connection, state, charge[0]) == (0, False)


def test_more_cannot_be_refunded_than_was_captured(connection: Connection) -> None:
    charge = insert_charge(connection)
    insert_refund(connection, charge, amount=700)

    with pytest.raises(errors.CheckViolation) as refused:
        insert_refund(connection, charge, amount=301)
    assert refused.value.diag.constraint_name == "refunded_within_captured"


def test_a_refund_in_another_currency_is_refused(connection: Connection) -> None:
    with pytest.raises(errors.CheckViolation, match="another currency than its charge"):
        insert_refund(connection, insert_charge(connection), currency="usd")


def test_two_refunds_of_one_charge_at_once_neither_block_each_other_for_good_nor_exceed_it(
    database: Settings,
) -> None:
    with connect(database) as setup:
        charge = insert_charge(setup)
    outcomes: list[str | None] = []

    def refund_beside() -> None:
        with connect(database) as beside:
            try:
                insert_refund(beside, charge, amount=600)
                outcomes.append(None)
            except errors.CheckViolation as refused:
                outcomes.append(refused.diag.constraint_name)
                beside.rollback()

    with connect(database) as first:
        insert_refund(first, charge, amount=600)
        other = threading.Thread(target=refund_beside)
        other.start()
        wait_until_someone_waits_for_a_lock(database)
        first.commit()
    other.join(timeout=30)

    assert outcomes == ["refunded_within_captured"]
    with connect(database) as after:
        assert one(after, "SELECT amount_refunded FROM payments.charges WHERE id = %s", charge[0]) == (600,)


def test_a_refund_that_has_locked_the_charges_key_does_not_deadlock_with_another(database: Settings) -> None:
    """Both hold the key share lock of the foreign key before either trigger locks the row."""
    with connect(database) as setup:
        charge = insert_charge(setup)
    key_share = "SELECT FROM payments.charges WHERE id = %s FOR KEY SHARE"

    with connect(database) as first, connect(database) as second:
        second.execute(key_share, [charge[0]])
        first.execute("SET LOCAL lock_timeout = '5s'")
        insert_refund(first, charge, amount=300)
        first.commit()
        insert_refund(second, charge, amount=300)
        second.commit()
        assert one(first, "SELECT amount_refunded FROM payments.charges WHERE id = %s", charge[0]) == (600,)


def wait_until_someone_waits_for_a_lock(database: Settings) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 30
    with connect(database, autocommit=True) as observer:
        while one(observer, waiting, database.postgres_database) == (0,):
            assert time.monotonic() < deadline, "nobody came to wait"
            time.sleep(0.02)


def test_a_dispute_marks_its_charge_and_its_deletion_takes_the_mark_back(connection: Connection) -> None:
    charge = insert_charge(connection)
    insert_dispute(connection, charge)
    state = "SELECT disputed FROM payments.charges WHERE id = %s"

    assert one(connection, state, charge[0]) == (True,)
    connection.execute("DELETE FROM payments.disputes WHERE charge_id = %s", [charge[0]])
    assert one(connection, state, charge[0]) == (False,)


def test_a_dispute_beyond_its_charge_is_refused(connection: Connection) -> None:
    with pytest.raises(errors.CheckViolation, match="exceeds its charge"):
        insert_dispute(connection, insert_charge(connection), amount=1001)


# What customers and merchants write


def test_a_customer_cannot_leave_before_they_came(connection: Connection) -> None:
    with pytest.raises(errors.CheckViolation) as refused:
        insert(connection, "customers", deleted_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert refused.value.diag.constraint_name == "not_deleted_before_created"


def metadata_of(size: int) -> str:
    """JSON text of so many bytes, as PostgreSQL writes it; compressed, it is much smaller."""
    return '{"k": "' + "x" * (size - 9) + '"}'


@pytest.mark.parametrize("table", ["customers", "charges"])
def test_metadata_beyond_64_kib_is_refused_by_name(connection: Connection, table: str) -> None:
    def write(size: int) -> None:
        if table == "charges":
            insert_charge(connection, metadata=metadata_of(size))
        else:
            insert(connection, table, metadata=metadata_of(size))

    write(65_536)
    with pytest.raises(errors.CheckViolation) as refused:
        write(65_537)
    assert refused.value.diag.constraint_name == "metadata_is_small"


def test_every_captured_json_column_is_bounded(connection: Connection) -> None:
    json_columns = connection.execute(
        "SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attrelid = ANY(%s::regclass[]) "
        "AND atttypid = 'jsonb'::regtype AND NOT attisdropped",
        [[table.qualified for table in CAPTURED_TABLES]],
    ).fetchall()
    bounds = connection.execute(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
    ).fetchall()
    assert len(json_columns) > 10
    for table, column in json_columns:
        bound = f"octet_length(({column})::text) <= 65536"
        assert [definition for bounded, definition in bounds if bounded == table and bound in definition], table


# Keys, times, partitions


def test_the_default_key_is_version_7_and_sorts_by_time(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT payments.uuid_v7() FROM generate_series(1, 200) AS n, LATERAL (SELECT pg_sleep(0.00001 * n)) AS s"
    ).fetchall()
    keys = [key for (key,) in rows]

    assert {(key.version, key.variant) for key in keys} == {(7, uuid.RFC_4122)}
    assert keys == sorted(keys)
    made_at = datetime.fromtimestamp((keys[-1].int >> 80) / 1000, UTC)
    assert abs(datetime.now(UTC) - made_at) < timedelta(minutes=1)


def test_updated_is_the_time_of_the_last_change(connection: Connection) -> None:
    charge, _ = insert_charge(connection, updated=datetime(2020, 1, 1, tzinfo=UTC))
    connection.execute("UPDATE payments.charges SET description = 'x' WHERE id = %s", [charge])

    assert one(connection, "SELECT updated = now() FROM payments.charges WHERE id = %s", charge) == (True,)


@pytest.mark.parametrize("table", [table.name for table in CAPTURED_TABLES])
def test_the_key_and_created_of_no_captured_table_can_change(connection: Connection, table: str) -> None:
    (definition,) = one(
        connection,
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = 'forbid_key_change'",
        f"payments.{table}",
    )
    (key,) = [captured.key for captured in CAPTURED_TABLES if captured.name == table]

    for column in {*key, "created"}:
        assert f"old.{column} IS DISTINCT FROM new.{column}" in str(definition)


@pytest.mark.parametrize("change", ["id = payments.uuid_v7()", "created = created + interval '1 second'"])
def test_a_change_of_key_or_created_is_refused_and_the_column_named(connection: Connection, change: str) -> None:
    charge, _ = insert_charge(connection)

    with pytest.raises(errors.IntegrityConstraintViolation, match=f"column {change.split(maxsplit=1)[0]} of payments"):
        connection.execute(f"UPDATE payments.charges SET {change} WHERE id = %s".encode(), [charge])


@pytest.mark.parametrize("table", ["customers", "charges", "charges_default", "charges_2031_05"])
def test_truncate_is_refused_on_tables_and_on_partitions(connection: Connection, table: str) -> None:
    ensure_partitions(connection, [datetime(2031, 5, 1, tzinfo=UTC)])

    with pytest.raises(errors.IntegrityConstraintViolation, match=r"TRUNCATE of .* is not allowed"):
        connection.execute(f"TRUNCATE payments.{table} CASCADE".encode())


def test_a_charge_lies_in_the_partition_of_its_utc_month(connection: Connection) -> None:
    made = ensure_partitions(connection, [datetime(2031, 5, 31, 23, tzinfo=UTC)])
    charge, _ = insert_charge(connection, created=datetime(2031, 5, 31, 23, 59, 59, 999999, tzinfo=UTC))
    next_charge, _ = insert_charge(connection, created=datetime(2031, 6, 1, tzinfo=UTC))
    place = "SELECT tableoid::regclass::text FROM payments.charges WHERE id = %s"

    assert made == ("charges_2031_05", "balance_transactions_2031_05", "events_2031_05")
    assert one(connection, place, charge) == ("charges_2031_05",)
    assert one(connection, place, next_charge) == ("charges_default",)
    assert ensure_partitions(connection, [datetime(2031, 5, 1, tzinfo=UTC)]) == ()


def test_rows_of_a_month_move_from_the_default_partition_unchanged_with_what_refers_to_them(
    connection: Connection,
) -> None:
    charge = insert_charge(connection, created=datetime(2031, 7, 15, tzinfo=UTC))
    other, _ = insert_charge(connection, created=datetime(2031, 8, 1, tzinfo=UTC))
    insert_refund(connection, charge)
    row = "SELECT c.*, tableoid::regclass::text AS place FROM payments.charges AS c WHERE id = %s"
    before = one(connection, row, charge[0])

    ensure_partitions(connection, [charge[1]])

    after = one(connection, row, charge[0])
    assert after[:-1] == before[:-1]
    assert (before[-1], after[-1]) == ("charges_default", "charges_2031_07")
    assert one(connection, row, other)[-1] == "charges_default"
    with pytest.raises(errors.ForeignKeyViolation):
        connection.execute("DELETE FROM payments.charges WHERE id = %s", [charge[0]])


def test_a_partition_that_cannot_be_made_says_why(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stripe_platform.oltp.partitions.LOCK_LIMIT", timedelta(seconds=0.1))
    with connect(database) as reader, connect(database) as maker:
        reader.execute("SELECT FROM payments.charges LIMIT 1")
        with pytest.raises(PartitionNotMade, match=r"charges_2032_01 was not made: another transaction"):
            ensure_partitions(maker, [datetime(2032, 1, 1, tzinfo=UTC)])


# Reference data


def test_every_currency_has_its_decimals_and_a_rate_known_before_2018_04(connection: Connection) -> None:
    exponents: dict[str, int] = dict(connection.execute("SELECT code, exponent FROM payments.currencies").fetchall())
    rated = connection.execute("SELECT currency FROM payments.exchange_rates WHERE day <= '2018-03-31'").fetchall()

    zero = {code for code, exponent in exponents.items() if exponent == 0}
    assert " ".join(sorted(zero)) == "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"
    assert {code for code, exponent in exponents.items() if exponent == 3} == {"bhd", "jod", "kwd", "omr", "tnd"}
    assert {code for (code,) in rated} == set(exponents)
    assert one(connection, "SELECT rate FROM payments.exchange_rates WHERE currency = 'eur'") == (1,)


def test_every_country_that_an_import_may_make_up_is_known(connection: Connection) -> None:
    from stripe_platform.oltp.parties import merchant_attributes

    known = {code for (code,) in connection.execute("SELECT iso2 FROM payments.countries")}
    currencies = [code for (code,) in connection.execute("SELECT code FROM payments.currencies")]

    made_up = {merchant_attributes(str(n), code)["country"] for code in currencies for n in range(50)}
    assert made_up <= known


# Migrations


def write_migration(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    for file in MIGRATIONS.iterdir():
        write_migration(tmp_path, file.name, file.read_text("utf-8"))
    return tmp_path


def test_migrating_again_changes_nothing(database: Settings) -> None:
    state = (
        "SELECT (SELECT json_agg(m) FROM public.schema_migrations AS m)::text, "
        "(SELECT json_agg(p.xmin::text) FROM pg_publication AS p)::text, "
        "(SELECT json_agg(r.xmin::text ORDER BY oid) FROM pg_publication_rel AS r)::text, "
        "(SELECT json_agg(c.xmin::text ORDER BY oid) FROM pg_class AS c WHERE relacl IS NOT NULL)::text"
    )
    with connect(database) as connection:
        before = one(connection, state)

    report = migrate(database)

    assert report.applied == ()
    assert not report.replication_changed
    with connect(database) as connection:
        assert one(connection, state) == before


def test_two_migrators_at_once_apply_each_file_once(new_database: NewDatabase) -> None:
    settings = new_database()
    reports = []
    both = [threading.Thread(target=lambda: reports.append(migrate(settings))) for _ in range(2)]
    for migrator in both:
        migrator.start()
    for migrator in both:
        migrator.join(timeout=120)

    files_applied = [name for report in reports for name in report.applied]
    assert len(reports) == 2
    assert sorted(files_applied) == sorted(file.name for file in MIGRATIONS.iterdir())


def test_an_edited_migration_is_refused_and_nothing_is_applied(database: Settings, migrations: Path) -> None:
    write_migration(migrations, "0004_imports.sql", "SELECT 1;")
    write_migration(migrations, "0099_more.sql", "CREATE TABLE payments.more (id int);")

    with pytest.raises(MigrationError, match=r"0004_imports\.sql was edited"):
        migrate(database, migrations)
    with connect(database) as connection:
        assert one(connection, "SELECT to_regclass('payments.more')") == (None,)


def test_a_failing_migration_is_rolled_back_and_names_file_and_line_but_no_value(
    database: Settings, migrations: Path
) -> None:
    write_migration(
        migrations,
        "0099_wrong.sql",
        "CREATE TABLE payments.more (id int);\nINSERT INTO payments.currencies (code, name, exponent)\n"
        "VALUES ('eur', 'secret-value', 2);\n",
    )

    with pytest.raises(MigrationFailed, match=r"0099_wrong\.sql: duplicate key") as failed:
        migrate(database, migrations)
    assert "secret-value" not in str(failed.value)
    with connect(database) as connection:
        assert one(connection, "SELECT to_regclass('payments.more')") == (None,)

    write_migration(migrations, "0099_wrong.sql", "SELECT 1;\nSELECT nonsense;\n")
    with pytest.raises(MigrationFailed, match=r"0099_wrong\.sql, line 2: column \"nonsense\""):
        migrate(database, migrations)


# Replication


def published(connection: Connection) -> dict[str, list[str]]:
    return dict(
        connection.execute(
            "SELECT tablename::text, attnames::text[] FROM pg_publication_tables "
            "WHERE pubname = %s AND schemaname = 'payments'",
            [PUBLICATION],
        ).fetchall()
    )


def test_the_publication_lists_exactly_the_captured_columns_that_are_not_personal(
    connection: Connection,
) -> None:
    expected = {table: [c.name for c in columns] for table, columns in captured_columns(connection).items()}

    assert published(connection) == expected
    assert list(expected) == [table.name for table in CAPTURED_TABLES]
    for table, names in personal_columns().items():
        assert not names & set(expected[table])
    options = "pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables"
    assert one(connection, f"SELECT {options} FROM pg_publication WHERE pubname = %s", PUBLICATION) == (
        *([True] * 5),
        False,
    )


def test_a_new_column_and_a_dropped_one_reach_publication_and_grants_with_their_migration(
    new_database: NewDatabase, migrations: Path
) -> None:
    settings = new_database()
    migrate(settings)
    write_migration(
        migrations,
        "0099_columns.sql",
        "ALTER TABLE payments.charges ADD COLUMN terminal_id text;\n"
        "ALTER TABLE payments.charges DROP COLUMN shipping_country CASCADE;\n",
    )

    report = migrate(settings, migrations)

    assert report.applied == ("0099_columns.sql",)
    with connect(settings) as connection:
        columns = published(connection)["charges"]
        assert "terminal_id" in columns
        assert "shipping_country" not in columns
        assert "ip" not in columns
        assert granted(connection)["charges"] == set(columns)


OUT = f"ALTER PUBLICATION {PUBLICATION} DROP TABLE payments.merchants; "
RETYPED = "ALTER TABLE payments.merchants ALTER COLUMN business_name TYPE varchar(400);"
CHANGED = "UPDATE payments.merchants SET business_name = 'lost';"


@pytest.mark.parametrize(
    ("by_hand", "migration", "holes"),
    [
        ("", OUT + RETYPED, []),
        ("", OUT + CHANGED, ["merchants"]),
        ("", CHANGED + OUT, ["merchants"]),
        ("", CHANGED, []),
        (OUT, "", ["merchants"]),
        (OUT, RETYPED, ["merchants"]),
        (f"ALTER PUBLICATION {PUBLICATION} SET (publish = 'insert, update')", "", ["customers", "merchants"]),
        (f"DROP PUBLICATION {PUBLICATION}", "", ["customers", "merchants"]),
    ],
)
def test_a_table_taken_before_whose_changes_may_have_been_left_out_has_a_hole_when_it_is_published_again(
    new_database: NewDatabase, migrations: Path, by_hand: str, migration: str, holes: list[str]
) -> None:
    settings = new_database()
    migrate(settings)
    with connect(settings, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
            "VALUES ('one', '5411', 'DE', 'eur')"
        )
        connection.execute("INSERT INTO cdc.signals VALUES ('a', 'execute-snapshot', '{}')")
        for table in ("customers", "merchants"):
            connection.execute(
                "INSERT INTO cdc.snapshots (signal_id, table_name, topic_id) VALUES ('a', %s, 't')", [table]
            )
        if by_hand:
            connection.execute(by_hand.encode())
    if not by_hand:
        # Whose changes must not be taken for the next one's.
        write_migration(migrations, "0097_changes.sql", CHANGED)
    if migration:
        write_migration(migrations, "0098_migration.sql", migration)
    migrate(settings, migrations)
    with connect(settings) as connection:
        found = connection.execute("SELECT table_name FROM cdc.holes ORDER BY table_name").fetchall()
        assert set(published(connection)) == {table.name for table in CAPTURED_TABLES}
    assert [table for (table,) in found] == holes
    assert not migrate(settings, migrations).replication_changed


def granted(connection: Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM information_schema.column_privileges "
        "WHERE grantee = %s AND table_schema = 'payments'",
        [CDC_ROLE],
    ):
        found.setdefault(table, set()).add(column)
    return found


def test_grants_and_publication_that_someone_widened_are_put_right(new_database: NewDatabase) -> None:
    settings = new_database()
    migrate(settings)
    with connect(settings) as connection:
        connection.execute("GRANT SELECT, INSERT ON payments.customers TO cdc")
        connection.execute("GRANT SELECT ON payments.imported_payments TO cdc")
        connection.execute("ALTER PUBLICATION stripe_platform SET TABLE payments.customers")
        connection.execute("ALTER PUBLICATION stripe_platform SET (publish_via_partition_root = false)")

    assert migrate(settings).replication_changed
    with connect(settings) as connection:
        captured = {table: {c.name for c in columns} for table, columns in captured_columns(connection).items()}
        assert {table: set(columns) for table, columns in published(connection).items()} == captured
        assert granted(connection) == captured
        assert one(connection, "SELECT pubviaroot FROM pg_publication") == (True,)
    assert not migrate(settings).replication_changed


def test_a_table_that_is_being_analyzed_while_grants_and_publication_are_mended_does_not_deadlock(
    new_database: NewDatabase,
) -> None:
    settings = new_database()
    migrate(settings)
    with connect(settings) as connection:
        connection.execute("GRANT SELECT, INSERT ON payments.customers TO cdc")
        connection.execute("DROP PUBLICATION stripe_platform")
    outcomes: list[bool | Exception] = []

    def mend() -> None:
        try:
            outcomes.append(migrate(settings).replication_changed)
        except errors.DeadlockDetected as deadlock:
            outcomes.append(deadlock)

    with connect(settings) as analyzing:
        analyzing.execute("LOCK TABLE payments.customers IN SHARE UPDATE EXCLUSIVE MODE")
        other = threading.Thread(target=mend)
        other.start()
        wait_until_someone_waits_for_a_lock(settings)
        analyzing.execute("ANALYZE payments.customers")
        analyzing.commit()
    other.join(timeout=30)

    assert outcomes == [True]


@pytest.fixture
def changes(database: Settings) -> Iterator[Callable[[], list[bytes]]]:
    """What pgoutput sends to a reader of the publication since the start of the test, message by message."""
    slot = f"slot_{uuid.uuid4().hex}"
    read = (
        "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
        "'proto_version', '1', 'publication_names', %s)"
    )
    with connect(database, autocommit=True) as reader:
        reader.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])

        def read_all() -> list[bytes]:
            # The test servers commit without a flush; only what is flushed can be decoded.
            reader.execute("SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'flush', '')")
            return [data for (data,) in reader.execute(read, [slot, PUBLICATION])]

        yield read_all
        reader.execute("SELECT pg_drop_replication_slot(%s)", [slot])


def test_a_reader_of_the_publication_gets_no_personal_value(
    database: Settings, changes: Callable[[], list[bytes]]
) -> None:
    with connect(database) as connection:
        insert(connection, "customers", email="canary@example.com", name="canary", phone="canary", country="DE")
        connection.execute("UPDATE payments.customers SET delinquent = TRUE WHERE name = 'canary'")
        insert_charge(connection, ip="203.0.113.77", device_id="canary", description="told")

    told = changes()
    assert any(b"told" in message for message in told)
    assert not [message for message in told if b"canary" in message or b"203.0.113.77" in message]


def test_a_row_that_moves_to_its_partition_is_told_as_deleted_and_inserted_under_the_root(
    database: Settings, changes: Callable[[], list[bytes]]
) -> None:
    with connect(database) as connection:
        charge = insert_charge(connection, created=datetime(2033, 3, 3, tzinfo=UTC))
        insert_refund(connection, charge)
    seen = len(changes())

    with connect(database) as connection:
        ensure_partitions(connection, [charge[1]])

    told = changes()
    names = {message[1:5]: message[5:].split(b"\x00")[1] for message in told if message[:1] == b"R"}
    rows = [message for message in told[seen:] if message[:1] in (b"I", b"U", b"D")]
    assert [(message[:1], names[message[1:5]]) for message in rows] == [(b"D", b"charges"), (b"I", b"charges")]
    assert all(str(charge[0]).encode() in message for message in rows)


def test_a_personal_column_that_does_not_exist_is_refused_by_name(connection: Connection) -> None:
    with pytest.raises(InvalidPersonalColumns, match="customers has no column e_mail"):
        captured_columns(connection, {"customers": frozenset({"e_mail"})})


@pytest.fixture
def as_cdc(database: Settings) -> Iterator[Connection]:
    with psycopg.connect(
        database.postgres_conninfo, user=CDC_ROLE, password=database.secret("cdc_password"), autocommit=True
    ) as connection:
        yield connection


def test_cdc_reads_every_column_that_is_published(as_cdc: Connection) -> None:
    for table, columns in published(as_cdc).items():
        as_cdc.execute(
            sql.SQL("SELECT {} FROM payments.{}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
            )
        )


@pytest.mark.parametrize(
    "statement",
    [
        *(
            f"SELECT {column} FROM payments.{table}"
            for table, names in personal_columns().items()
            for column in sorted(names)
        ),
        "SELECT * FROM payments.customers",
        "SELECT * FROM payments.charges_default",
        "SELECT * FROM payments.imported_payments",
        "SELECT * FROM public.schema_migrations",
        "INSERT INTO payments.countries (iso2, name, region) VALUES ('XX', 'x', 'x')",
        "UPDATE payments.currencies SET name = 'x'",
        "DELETE FROM payments.exchange_rates",
        "TRUNCATE payments.refunds",
        "CREATE TABLE payments.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CALL payments.guard('payments.refunds', 'id')",
        "ALTER PUBLICATION stripe_platform ADD TABLE payments.imported_payments",
        "SELECT data FROM cdc.signals",
        "UPDATE cdc.signals SET data = 'x'",
        "TRUNCATE cdc.signals",
        "SELECT * FROM cdc.snapshots",
        "INSERT INTO cdc.snapshots (signal_id, table_name, topic_id) VALUES ('x', 'x', 'x')",
    ],
)
def test_cdc_reads_nothing_personal_and_writes_nothing(as_cdc: Connection, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        as_cdc.execute(statement.encode())


def test_the_publication_has_the_signals_and_nothing_else_outside_the_schema_of_payments(
    connection: Connection,
) -> None:
    others = "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s AND schemaname <> 'payments'"
    assert connection.execute(others, [PUBLICATION]).fetchall() == [("cdc", "signals")]


def test_cdc_marks_the_bounds_of_a_snapshot_s_chunks_in_the_signals(as_cdc: Connection) -> None:
    as_cdc.execute("INSERT INTO cdc.signals VALUES ('of a test', 'snapshot-window-open', NULL)")
    assert as_cdc.execute("DELETE FROM cdc.signals WHERE id = 'of a test'").rowcount == 1


def test_cdc_may_write_the_heartbeat_message(as_cdc: Connection) -> None:
    assert one(as_cdc, "SELECT pg_logical_emit_message(true, 'heartbeat', '') IS NOT NULL") == (True,)


def test_the_password_of_cdc_is_kept_as_a_scram_verifier(connection: Connection, database: Settings) -> None:
    (kept,) = one(connection, "SELECT rolpassword FROM pg_authid WHERE rolname = %s", CDC_ROLE)

    assert str(kept).startswith("SCRAM-SHA-256$")
    assert database.secret("cdc_password") not in str(kept)


def test_a_server_that_cannot_be_reached_is_named_with_the_remedy(stack: Settings) -> None:
    with pytest.raises(PostgresUnavailable, match=r"127\.0\.0\.1:1, database .* `make up`"):
        connect(Settings.model_validate(stack.model_dump() | {"postgres_port": 1}))


# Assets and checks


def test_tables_are_migrated_partitioned_and_counted(new_database: NewDatabase) -> None:
    settings = new_database()

    states = {state.name: state for state in bring_up_to_date(settings, ["currencies", "charges"])}

    assert (states["currencies"].rows, states["currencies"].exact) == (140, True)
    assert (states["charges"].rows, states["charges"].exact) == (0, True)
    assert "ip" in {column.name for column in states["charges"].columns}
    with connect(settings) as connection:
        for month in (month_of(datetime.now(UTC)), next_month(month_of(datetime.now(UTC)))):
            insert_charge(connection, created=month)
        assert ledger.rows_in_default_partition(connection, "charges") == 0


def test_many_rows_are_estimated_and_said_to_be(connection: Connection) -> None:
    ensure_partitions(connection, [datetime(2031, 5, 1, tzinfo=UTC)])
    insert_charge(connection, created=datetime(2031, 5, 1, tzinfo=UTC))
    connection.execute("ANALYZE payments.countries, payments.charges_2031_05")

    assert row_count(connection, "charges", counted_up_to=0) == (1, False)
    assert row_count(connection, "countries", counted_up_to=100) == (249, False)


def test_the_multi_asset_reports_rows_and_columns_of_the_selected_tables(database: Settings) -> None:
    result = dg.materialize(
        [assets.oltp_tables], resources={"settings": database}, selection=[dg.AssetKey(["oltp", "currencies"])]
    )

    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == dg.AssetKey(["oltp", "currencies"])
    metadata = event.materialization.metadata
    assert metadata["dagster/row_count"].value == 140
    assert metadata["row_count_is"].value == "exact"
    columns = metadata["dagster/column_schema"].value.columns  # type: ignore[union-attr]
    assert [column.name for column in columns][:3] == ["code", "name", "exponent"]
    assert "decimal" in next(column.description for column in columns if column.name == "exponent")


def verdicts(settings: Settings) -> dict[tuple[str, str], bool]:
    every_check = [
        *checks.default_partitions_are_empty,
        checks.movements_have_their_source,
    ]
    result = dg.materialize(
        [assets.oltp_tables, *every_check],
        resources={"settings": settings},
        selection=dg.AssetSelection.checks(*every_check),
        raise_on_error=False,
    )
    return {
        (evaluation.asset_key.path[-1], evaluation.check_name): evaluation.passed
        for evaluation in result.get_asset_check_evaluations()
    }


def movement_for_nothing(connection: Connection) -> None:
    insert_movement(connection, source_type="refund", source_id=uuid.uuid4())


def charge_without_a_month(connection: Connection) -> None:
    insert_charge(connection, created=datetime(1999, 1, 1, tzinfo=UTC))


def movement_without_a_month(connection: Connection) -> None:
    insert_movement(connection, created=datetime(1999, 1, 1, tzinfo=UTC))


def event_without_a_month(connection: Connection) -> None:
    about = {"type": "charge.succeeded", "object_type": "charge", "object_id": uuid.uuid4()}
    insert(
        connection, "events", api_version="2026-01-01", payload="{}", created=datetime(1999, 1, 1, tzinfo=UTC), **about
    )


@pytest.mark.parametrize(
    ("damage", "failing"),
    [
        (charge_without_a_month, ("charges", "default_partition_is_empty")),
        (movement_without_a_month, ("balance_transactions", "default_partition_is_empty")),
        (event_without_a_month, ("events", "default_partition_is_empty")),
        (movement_for_nothing, ("balance_transactions", "movements_have_their_source")),
    ],
)
def test_each_check_passes_on_sound_tables_and_fails_alone_on_its_damage(
    new_database: NewDatabase, damage: Callable[[Connection], None], failing: tuple[str, str]
) -> None:
    settings = new_database()
    list(bring_up_to_date(settings, []))
    with connect(settings) as connection:
        insert_movement(connection, source_type="charge", source_id=insert_charge(connection)[0])
    sound = verdicts(settings)
    assert len(sound) == 4
    assert all(sound.values()), sound

    with connect(settings) as connection:
        damage(connection)

    assert [check for check, passed in verdicts(settings).items() if not passed] == [failing]


def test_no_file_of_the_migrations_is_left_out_of_the_package() -> None:
    assert {file.name for file in (files("stripe_platform.oltp") / "migrations").iterdir()} >= {
        "0001_reference_tables.sql",
        "0005_reference_data.sql",
    }
