"""Partitions past their table's retention leave it for schema `archive`, where their rows stay to be read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count

import psycopg
from psycopg import sql

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.partitions import LOCK_LIMIT, in_short_waits, month_of
from stripe_platform.oltp.tables import CAPTURED_TABLES, SCHEMA

ARCHIVE = "archive"
COUNT_LIMIT = "5min"

KEPT_MONTHS = {
    table.name: table.kept_months for table in CAPTURED_TABLES if table.monthly and table.kept_months is not None
}
"""Whole months before the current one that stay in the table; a table that is not named keeps its rows for ever."""


@dataclass(frozen=True)
class Detached:
    """A partition that left its table: rows created from `first_created` on and before `created_before`.

    `name` is the table in schema `archive` that it has become.
    """

    name: str
    table: str
    first_created: datetime
    created_before: datetime
    rows: int


@dataclass(frozen=True)
class _Expired:
    table: str
    partition: str
    first_created: datetime
    created_before: datetime


class PartitionInUse(StripePlatformError):
    """A partition could not be detached because its table stayed in use."""

    def __init__(self, partition: str) -> None:
        super().__init__(
            f"partition {SCHEMA}.{partition} was not detached: another transaction kept its table in use "
            f"for {LOCK_LIMIT.total_seconds():g} s; "
            "end the long transaction (pg_stat_activity names it) and run partition_maintenance again"
        )


class PartitionStillReferenced(StripePlatformError):
    """Rows of another table point into a partition that is past its retention."""

    def __init__(self, partition: str, referencing: str | None) -> None:
        super().__init__(
            f"partition {SCHEMA}.{partition} was not detached: rows of {SCHEMA}.{referencing or '(unnamed)'} "
            "point into it; give that table a retention at least as short, or the partition's table a longer one "
            "(`kept_months` in oltp/tables.py)"
        )


class PartitionsNotDetached(StripePlatformError):
    """Some partitions stayed although their time is over; `detached` are those that left."""

    def __init__(self, detached: tuple[Detached, ...], errors: list[StripePlatformError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.detached = detached


def detach_expired(
    connection: psycopg.Connection, now: datetime, kept_months: Mapping[str, int] = KEPT_MONTHS
) -> tuple[Detached, ...]:
    """Move every partition that ended `kept_months` months before this one to `archive`, oldest first.

    Each goes in one transaction with its row in `archive.detached_partitions` (the connection commits by itself).
    Consumers of the change stream are told nothing: to them its rows stay as they were. `PartitionsNotDetached`, at
    the end, when one had to stay: `PartitionInUse` or `PartitionStillReferenced` say why.
    """
    detached: list[Detached] = []
    errors: list[StripePlatformError] = []
    for table, months in kept_months.items():
        for expired in _partitions_before(connection, table, _months_before(month_of(now), months)):
            try:
                detached.append(_detach(connection, expired))
            except StripePlatformError as error:
                errors.append(error)
    if errors:
        raise PartitionsNotDetached(tuple(detached), errors)
    return tuple(detached)


def _months_before(month: datetime, months: int) -> datetime:
    years, index = divmod(month.year * 12 + month.month - 1 - months, 12)
    return month.replace(year=years, month=index + 1)


# The bounds are the catalog's own, whatever the partition is called; the default partition has none.
_PARTITIONS = """
SELECT relname, first_created, created_before
FROM (
    SELECT
        partition.relname,
        substring(bounds.text FROM $$FROM \\('([^']+)'\\)$$)::timestamptz AS first_created,
        substring(bounds.text FROM $$TO \\('([^']+)'\\)$$)::timestamptz AS created_before
    FROM pg_inherits AS child
    INNER JOIN pg_class AS partition ON partition.oid = child.inhrelid
    CROSS JOIN LATERAL pg_get_expr(partition.relpartbound, partition.oid) AS bounds (text)
    WHERE child.inhparent = %s::regclass
) AS ranged
WHERE created_before <= %s
ORDER BY first_created
"""


def _partitions_before(connection: psycopg.Connection, table: str, end: datetime) -> list[_Expired]:
    rows = connection.execute(_PARTITIONS, [f"{SCHEMA}.{table}", end]).fetchall()
    return [_Expired(table, name, first.astimezone(UTC), before.astimezone(UTC)) for name, first, before in rows]


def _detach(connection: psycopg.Connection, expired: _Expired) -> Detached:
    try:
        return in_short_waits(connection, partial(_move, connection, expired))
    except psycopg.errors.LockNotAvailable as error:
        raise PartitionInUse(expired.partition) from error
    except psycopg.errors.ForeignKeyViolation as error:
        # The message may hold a key's values, and the table named is that which refers.
        raise PartitionStillReferenced(expired.partition, error.diag.table_name) from None


def _move(connection: psycopg.Connection, expired: _Expired) -> Detached:
    leaf = sql.Identifier(SCHEMA, expired.partition)
    connection.execute("SELECT set_config('statement_timeout', %s, true)", [COUNT_LIMIT])
    # Counted while others may read the month, and before anybody has to wait for the whole table.
    connection.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(leaf))
    ((rows,),) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(leaf)).fetchall()
    parent = sql.Identifier(SCHEMA, expired.table)
    connection.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(parent, leaf))
    for constraint in _foreign_keys(connection, expired.partition):
        # What is archived must not keep a row of a living table from being deleted.
        connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(leaf, sql.Identifier(constraint)))
    name = _into_archive(connection, expired.partition)
    connection.execute(
        "INSERT INTO archive.detached_partitions (name, table_name, first_created, created_before, row_count) "
        "VALUES (%s, %s, %s, %s, %s)",
        [name, expired.table, expired.first_created, expired.created_before, rows],
    )
    return Detached(name, expired.table, expired.first_created, expired.created_before, rows)


def _foreign_keys(connection: psycopg.Connection, partition: str) -> list[str]:
    rows = connection.execute(
        "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'f'", [f"{SCHEMA}.{partition}"]
    )
    return [name for (name,) in rows]


def _into_archive(connection: psycopg.Connection, partition: str) -> str:
    """Move the table with its indexes, and return its name there."""
    suffix = _free_suffix(connection, partition)
    if suffix:
        indexes = connection.execute(
            "SELECT relname FROM pg_class INNER JOIN pg_index ON indexrelid = oid WHERE indrelid = %s::regclass",
            [f"{SCHEMA}.{partition}"],
        ).fetchall()
        for (relation,) in [*indexes, (partition,)]:
            connection.execute(
                sql.SQL("ALTER {} {} RENAME TO {}").format(
                    sql.SQL("TABLE" if relation == partition else "INDEX"),
                    sql.Identifier(SCHEMA, relation),
                    sql.Identifier(relation + suffix),
                )
            )
    name = partition + suffix
    connection.execute(
        sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(sql.Identifier(SCHEMA, name), sql.Identifier(ARCHIVE))
    )
    return name


def _free_suffix(connection: psycopg.Connection, partition: str) -> str:
    """Empty the first time, then _2, _3, …: for rows that come late a month may be made, and archived, once more."""
    taken = {name for (name,) in connection.execute("SELECT name FROM archive.detached_partitions")}
    return next(suffix for suffix in _suffixes() if partition + suffix not in taken)


def _suffixes() -> Iterator[str]:
    yield ""
    for number in count(2):
        yield f"_{number}"
