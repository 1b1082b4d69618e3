"""What PostgreSQL's catalog says about the captured tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import CAPTURED_TABLES, SCHEMA
from stripe_platform.privacy.columns import InvalidPersonalColumns, personal_columns


@dataclass(frozen=True)
class Column:
    """A column as the catalog describes it; `type` is PostgreSQL's own name for it (`int8`, `timestamptz`,
    …).

    `precision` and `scale` are those of a `numeric` that was declared with them, else None. `number` is the column's
    own: one that is dropped and added again has another. `filled_before` is set where rows older than this time may
    have a value that no change ever told, by a default of `ADD COLUMN`.
    """

    name: str
    type: str
    nullable: bool
    precision: int | None
    scale: int | None
    comment: str | None = None
    number: int | None = None
    filled_before: datetime | None = field(default=None, compare=False)


class TableMissing(StripePlatformError):
    """A captured table is not in the database."""

    def __init__(self, tables: list[str]) -> None:
        super().__init__(
            f"captured tables missing from schema {SCHEMA}: {', '.join(tables)}; "
            "run the migrations (`stripe-platform up`)"
        )


# A typmod of numeric holds precision and scale, four bytes of header above them. Generated columns are not
# published. Of a constant default PostgreSQL keeps what older rows have (`atthasmissing`, for a partitioned table with
# its partitions); one that is made for each row it writes into them: that leaves the default itself, and NOT NULL.
_COLUMNS = """
SELECT
    relation.relname,
    attribute.attname,
    type.typname,
    NOT attribute.attnotnull,
    CASE WHEN type.typname = 'numeric' AND attribute.atttypmod >= 4
        THEN ((attribute.atttypmod - 4) >> 16) & 65535 END,
    CASE WHEN type.typname = 'numeric' AND attribute.atttypmod >= 4
        THEN (attribute.atttypmod - 4) & 2047 END,
    col_description(relation.oid, attribute.attnum),
    attribute.attnum,
    CASE WHEN attribute.atthasdef OR attribute.attidentity <> '' OR attribute.attnotnull
        OR attribute.atthasmissing OR EXISTS (
        SELECT FROM pg_partition_tree(relation.oid) AS tree
        INNER JOIN pg_attribute AS part ON part.attrelid = tree.relid
        WHERE part.attname = attribute.attname AND part.atthasmissing
    ) THEN clock_timestamp() END
FROM pg_class AS relation
INNER JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
INNER JOIN pg_type AS type ON type.oid = attribute.atttypid
WHERE relation.relnamespace = to_regnamespace(%(schema)s) AND relation.relname = ANY(%(tables)s)
    AND relation.relkind IN ('r', 'p')
    AND attribute.attnum > 0 AND NOT attribute.attisdropped AND attribute.attgenerated = ''
ORDER BY relation.relname, attribute.attnum
"""


def all_columns(connection: psycopg.Connection) -> dict[str, tuple[Column, ...]]:
    """Every column, personal ones too, of the captured tables that exist, in ordinal order."""
    tables = [table.name for table in CAPTURED_TABLES]
    found: dict[str, list[Column]] = {}
    for table, *column in connection.execute(_COLUMNS, {"schema": SCHEMA, "tables": tables}):
        found.setdefault(table, []).append(Column(*column))
    return {table: tuple(found[table]) for table in tables if table in found}


def captured_columns(
    connection: psycopg.Connection, personal: Mapping[str, frozenset[str]] | None = None
) -> dict[str, tuple[Column, ...]]:
    """The columns of each captured table in ordinal order, personal ones left out.

    Raises `TableMissing` when a table is not there, `InvalidPersonalColumns` when a personal column is not:
    a misspelt name in `columns.yaml` would let the true column flow.
    """
    personal = personal_columns() if personal is None else personal
    columns = all_columns(connection)
    missing = [table.name for table in CAPTURED_TABLES if table.name not in columns]
    if missing:
        raise TableMissing(missing)
    for table, names in personal.items():
        unknown = names - {column.name for column in columns[table]}
        if unknown:
            raise InvalidPersonalColumns(f"{table} has no column {', '.join(sorted(unknown))}")
    return without_personal(columns, personal)


def without_personal(
    columns: Mapping[str, tuple[Column, ...]], personal: Mapping[str, frozenset[str]]
) -> dict[str, tuple[Column, ...]]:
    """The given columns without those that `personal` names."""
    return {
        table: tuple(column for column in listed if column.name not in personal.get(table, frozenset()))
        for table, listed in columns.items()
    }
