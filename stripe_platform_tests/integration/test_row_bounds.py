"""No row of a captured table can be larger than the largest message: one that were would stop every table."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import errors

from stripe_platform.cdc.topics import LARGEST_MESSAGE_BYTES
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import MIGRATIONS, MigrationFailed, migrate
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.test_oltp import Connection, NewDatabase, insert, insert_charge

# Every column of a captured table, with the CHECKs that name no other column.
COLUMNS = """
SELECT
    attribute.attrelid::regclass::text, attribute.attname, attribute.atttypid::regtype::text, attribute.atttypmod,
    array(
        SELECT pg_get_constraintdef(described.oid) FROM pg_constraint AS described
        WHERE described.conrelid = attribute.attrelid AND described.conkey = ARRAY[attribute.attnum]
            AND described.contype = 'c' AND described.convalidated
    )
FROM pg_attribute AS attribute
INNER JOIN pg_type AS type ON type.oid = attribute.atttypid
WHERE attribute.attrelid = ANY(%s::regclass[]) AND attribute.attnum > 0 AND NOT attribute.attisdropped
    AND type.typlen = -1
"""
# JSON writes a control character as six bytes, and a quote or a backslash of a JSON text as two.
BYTES_PER_CHARACTER, BYTES_PER_JSON_BYTE = 6, 2
# A name, a number, a time or an address, with its column's name.
BYTES_PER_COLUMN = 200
# A change may carry the row as it was and as it is.
ROWS_PER_MESSAGE = 2


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


def migrate_to_before(number: str, settings: Settings, folder: Path) -> None:
    for file in MIGRATIONS.iterdir():
        if file.name < number:
            (folder / file.name).write_text(file.read_text("utf-8"), "utf-8")
    migrate(settings, folder)


def most_bytes(column: str, kind: str, modifier: int, definitions: list[str]) -> int | None:
    """The most bytes that a value can have in a message; None: nothing bounds it."""
    if kind == "character":
        return BYTES_PER_CHARACTER * (modifier - 4)
    if kind in ("inet", "numeric"):
        return 0 if kind == "inet" or modifier >= 0 else None
    checks = " ".join(definitions)
    if kind == "jsonb":
        size = re.search(rf"octet_length\(\({column}\)::text\) <= (\d+)", checks)
        return BYTES_PER_JSON_BYTE * int(size[1]) if size else None
    if length := re.search(rf"length\({column}\) <= (\d+)", checks):
        return BYTES_PER_CHARACTER * int(length[1])
    words = re.search(rf"\({column} = (?:ANY \(ARRAY\[)?('[^\]]*)", checks)
    return max(map(len, re.findall(r"'(\w+)'::text", words[1]))) if words else None


def bounds(connection: Connection) -> dict[tuple[str, str], int | None]:
    rows = connection.execute(COLUMNS.encode(), [[table.qualified for table in CAPTURED_TABLES]])
    return {
        (table, column): most_bytes(column, kind, modifier, definitions)
        for table, column, kind, modifier, definitions in rows
    }


def test_every_captured_column_is_bounded(connection: Connection) -> None:
    found = bounds(connection)
    assert {("charges", "description"), ("events", "payload"), ("merchants", "type")} < found.keys()
    assert found["merchants", "type"] == len("standard")
    assert [column for column, most in found.items() if most is None] == []


def test_the_widest_row_fits_into_a_message(connection: Connection) -> None:
    widest = dict.fromkeys((table.name for table in CAPTURED_TABLES), 0)
    for (table, _), most in bounds(connection).items():
        widest[table] += (most or 0) + BYTES_PER_COLUMN
    assert max(widest.values()) > 2 * 65_536
    assert ROWS_PER_MESSAGE * max(widest.values()) < LARGEST_MESSAGE_BYTES / 4


@pytest.mark.parametrize(("column", "characters"), [("description", 5_000), ("failure_code", 255), ("device_id", 255)])
def test_a_text_beyond_its_bound_is_refused_by_a_constraint_that_names_column_and_bound(
    connection: Connection, column: str, characters: int
) -> None:
    failed = {"status": "failed", "paid": False, "captured": False, "amount_captured": 0, "failure_code": "declined"}

    def write(text: str) -> None:
        insert_charge(connection, **(failed | {column: text}))

    write("😀" * characters)
    for text in ("x" * (characters + 1), "x" * (LARGEST_MESSAGE_BYTES + 1)):
        with pytest.raises(errors.CheckViolation) as refused, connection.transaction():
            write(text)
        assert refused.value.diag.constraint_name == f"{column}_within_{characters}_characters"


def test_a_longer_text_from_before_the_bounds_is_named_and_the_migration_goes_on_when_it_is_shortened(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    settings = new_database()
    migrate_to_before("0016", settings, tmp_path)
    with connect(settings) as connection:
        insert_charge(connection, description="x" * 5_001)

    with pytest.raises(MigrationFailed, match=r'0017_rows_from_before.*"description_within_5000_characters"'):
        migrate(settings)

    with connect(settings) as connection:
        # The bound holds for what is new already.
        with pytest.raises(errors.CheckViolation), connection.transaction():
            insert(connection, "customers", name="x" * 513)
        connection.execute("UPDATE payments.charges SET description = left(description, 5000)")
    assert migrate(settings).applied[0] == "0017_rows_from_before.sql"
    with connect(settings) as connection:
        assert connection.execute("SELECT count(*) FROM pg_constraint WHERE NOT convalidated").fetchone() == (0,)
