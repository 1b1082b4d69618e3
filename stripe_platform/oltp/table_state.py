"""What the OLTP tables are and hold, after migrations and partitions are brought up to date."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from stripe_platform.oltp.catalog import Column, all_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.partitions import ensure_partitions, months_to_come
from stripe_platform.oltp.tables import SCHEMA
from stripe_platform.settings import Settings

# The planner's row counts, -1 where it has none yet, of the table or of its partitions.
_ESTIMATE = """
SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint
FROM pg_class
WHERE relkind = 'r'
    AND oid IN (SELECT %(table)s::regclass UNION ALL SELECT relid FROM pg_partition_tree(%(table)s::regclass))
"""
# Counting this many rows takes about a second.
_COUNTED_UP_TO = 10_000_000


@dataclass(frozen=True)
class TableState:
    """A table's columns, personal ones too, and its rows: counted if `exact`, else the planner's estimate."""

    name: str
    columns: tuple[Column, ...]
    rows: int
    exact: bool


def bring_up_to_date(settings: Settings, tables: Iterable[str]) -> Iterator[TableState]:
    """Migrate, make the partitions of the months to come, and tell what the named tables hold."""
    migrate(settings)
    with connect(settings, autocommit=True) as connection:
        ensure_partitions(connection, months_to_come(datetime.now(UTC)))
    with connect(settings) as connection:
        connection.execute("SET LOCAL statement_timeout = '5min'")
        columns = all_columns(connection)
        for table in tables:
            rows, exact = row_count(connection, table)
            yield TableState(table, columns[table], rows, exact)


def row_count(connection: psycopg.Connection, table: str, counted_up_to: int = _COUNTED_UP_TO) -> tuple[int, bool]:
    """The rows of a table and whether they were counted; above `counted_up_to` the planner's estimate serves."""
    ((estimate,),) = connection.execute(_ESTIMATE, {"table": f"{SCHEMA}.{table}"}).fetchall()
    if estimate > counted_up_to:
        return int(estimate), False
    count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(SCHEMA, table))
    ((counted,),) = connection.execute(count).fetchall()
    return int(counted), True
