"""The captured tables as a picture: `python -m stripe_platform.oltp.data_model > docs/data_model.mermaid`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from stripe_platform.oltp.catalog import Column, all_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import CAPTURED_TABLES, SCHEMA
from stripe_platform.privacy.columns import personal_columns
from stripe_platform.settings import load_settings

# As migrations write the types that the catalog calls otherwise.
_TYPES = {"bpchar": "char", "int8": "bigint", "int4": "integer", "int2": "smallint", "bool": "boolean"}
# A partition's copy of a constraint has a parent.
_KEYS = """
SELECT
    relation.relname,
    referred.relname,
    array_agg(attribute.attname::text ORDER BY position.place),
    bool_or(NOT attribute.attnotnull)
FROM pg_constraint AS described
INNER JOIN pg_class AS relation ON relation.oid = described.conrelid
LEFT JOIN pg_class AS referred ON referred.oid = described.confrelid
CROSS JOIN unnest(described.conkey) WITH ORDINALITY AS position (number, place)
INNER JOIN pg_attribute AS attribute
    ON attribute.attrelid = described.conrelid AND attribute.attnum = position.number
WHERE relation.relnamespace = to_regnamespace(%(schema)s) AND relation.relname = ANY(%(tables)s)
    AND described.contype IN ('p', 'f') AND described.conparentid = 0
GROUP BY described.oid, relation.relname, referred.relname
ORDER BY 3
"""


@dataclass(frozen=True)
class _Key:
    """A primary key, or with `refers_to` a foreign key; `optional` when a row may have none."""

    table: str
    refers_to: str | None
    columns: list[str]
    optional: bool


def mermaid(connection: psycopg.Connection) -> str:
    """A Mermaid `erDiagram` of the captured tables: columns with types and keys, personal ones said to be, and the
    foreign keys, each labelled with its columns."""
    names = [table.name for table in CAPTURED_TABLES]
    keys = [_Key(*row) for row in connection.execute(_KEYS, {"schema": SCHEMA, "tables": names})]
    columns = all_columns(connection)
    lines = ["erDiagram"]
    for table in names:
        lines += _entity(table, columns[table], [key for key in keys if key.table == table])
    for table in names:
        lines += _relationships([key for key in keys if key.table == table])
    return "\n".join(lines) + "\n"


def _entity(table: str, columns: tuple[Column, ...], keys: list[_Key]) -> Iterator[str]:
    personal = personal_columns().get(table, frozenset())
    yield f"    {table} {{"
    for column in columns:
        kinds = {"FK" if key.refers_to else "PK" for key in keys if column.name in key.columns}
        marks = [", ".join(sorted(kinds, reverse=True))] if kinds else []
        if column.name in personal:
            marks.append('"personal"')
        yield " ".join([f"        {_TYPES.get(column.type, column.type)} {column.name}", *marks])
    yield "    }"


def _relationships(keys: list[_Key]) -> Iterator[str]:
    (primary,) = [key.columns for key in keys if key.refers_to is None]
    for key in keys:
        if key.refers_to:
            one = "|o" if key.optional else "||"
            many = "o|" if key.columns == primary else "o{"
            yield f'    {key.refers_to} {one}--{many} {key.table} : "{", ".join(key.columns)}"'


if __name__ == "__main__":
    with connect(load_settings()) as connection:
        sys.stdout.write(mermaid(connection))
