"""The committed picture of the tables beside the tables that the migrations make."""

import re
from collections.abc import Iterator

import pytest

from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.data_model import mermaid
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.privacy.columns import personal_columns
from stripe_platform.settings import PROJECT_ROOT
from stripe_platform_tests.integration.test_oltp import Connection, NewDatabase

PICTURE = (PROJECT_ROOT / "docs/data_model.mermaid").read_text("utf-8")
NAMES = [table.name for table in CAPTURED_TABLES]
ENTITY = re.compile(r"    (\w+) \{\n((?:        .*\n)*)    \}\n")
COLUMN = re.compile(r'        ([a-z]+) (\w+)(?: ((?:PK|FK)(?:, FK)?))?(?: "(personal)")?\n')
RELATIONSHIP = re.compile(r'    (\w+) (?:\|\||\|o)--o[{|] (\w+) : "(\w+(?:, \w+)*)"\n')
ENTITIES = {name: COLUMN.findall(columns) for name, columns in ENTITY.findall(PICTURE)}


@pytest.fixture(scope="module")
def connection(new_database: NewDatabase) -> Iterator[Connection]:
    settings = new_database()
    migrate(settings)
    with connect(settings) as connection:
        yield connection


def test_the_picture_is_that_of_the_migrations(connection: Connection) -> None:
    remedy = "python -m stripe_platform.oltp.data_model > docs/data_model.mermaid"
    assert mermaid(connection) == PICTURE, remedy


def test_every_line_of_the_picture_is_plain_entity_relationship_syntax() -> None:
    columns = "".join(columns for _, columns in ENTITY.findall(PICTURE))
    assert re.fullmatch(f"(?:{COLUMN.pattern})+", columns)
    assert re.fullmatch(rf"erDiagram\n(?:{ENTITY.pattern})+(?:{RELATIONSHIP.pattern})+", PICTURE)


def test_the_picture_has_every_column_with_its_type(connection: Connection) -> None:
    columns = connection.execute(
        "SELECT attrelid::regclass::text, attname, atttypid::regtype FROM pg_attribute "
        "WHERE attrelid = ANY(%s::regclass[]) AND attnum > 0 AND NOT attisdropped "
        "ORDER BY array_position(%s::regclass[], attrelid::regclass), attnum",
        [[f"payments.{name}" for name in NAMES]] * 2,
    ).fetchall()
    drawn = [
        (table, name, connection.execute("SELECT to_regtype(%s)", [kind]).fetchall()[0][0])
        for table, listed in ENTITIES.items()
        for kind, name, *_ in listed
    ]
    assert list(ENTITIES) == NAMES
    assert drawn == columns


def test_the_picture_has_every_key(connection: Connection) -> None:
    definitions = connection.execute(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = ANY(%s::regclass[]) AND contype IN ('p', 'f') AND conparentid = 0",
        [[f"payments.{name}" for name in NAMES]],
    ).fetchall()
    primary = {
        table: definition[len("PRIMARY KEY (") : -1] for table, definition in definitions if "PRIMARY" in definition
    }
    foreign = {
        (referred[2], table, referred[1])
        for table, definition in definitions
        if (referred := re.match(r"FOREIGN KEY \((.*?)\) REFERENCES (\w+)\(", definition))
    }
    drawn = {
        table: ", ".join(name for _, name, keys, _ in listed if "PK" in keys) for table, listed in ENTITIES.items()
    }
    assert drawn == primary
    assert set(RELATIONSHIP.findall(PICTURE)) == foreign
    with_foreign = {(table, name) for _, table, columns in foreign for name in columns.split(", ")}
    assert {(table, name) for table, listed in ENTITIES.items() for _, name, keys, _ in listed if "FK" in keys} == (
        with_foreign
    )


def test_the_picture_marks_the_personal_columns() -> None:
    drawn = {table: {name for _, name, _, mark in listed if mark} for table, listed in ENTITIES.items()}
    assert {table: names for table, names in drawn.items() if names} == personal_columns()
