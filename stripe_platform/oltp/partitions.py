"""Monthly partitions of the tables that are ranged by `created`, months in UTC."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import psycopg
from psycopg import sql
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import CAPTURED_TABLES, SCHEMA

T = TypeVar("T")

MONTHS_AHEAD = 3
LOCK_LIMIT = timedelta(seconds=30)
"""How long a table may stay in use by others."""

# Behind one who waits for a table everybody waits who wants it later: the waits are short, and there are many. Shorter
# than PostgreSQL's deadlock_timeout of 1 s, too: it is this that gives way and not a payment.
LOCK_WAIT = timedelta(milliseconds=300)


class PartitionNotMade(StripePlatformError):
    """A partition could not be made because the table stayed in use."""

    def __init__(self, partition: str) -> None:
        super().__init__(
            f"partition {SCHEMA}.{partition} was not made: another transaction kept its table in use "
            f"for {LOCK_LIMIT.total_seconds():g} s; "
            "end the long transaction (pg_stat_activity names it) and try again"
        )


def month_of(moment: datetime) -> datetime:
    """The first instant, in UTC, of the month that holds the moment."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(month: datetime) -> datetime:
    """The first instant of the following month, given the first of one."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def months_between(first: datetime, last: datetime) -> Iterator[datetime]:
    """First instants of every month from the one that holds `first` to the one that holds `last`."""
    month, end = month_of(first), month_of(last)
    while month <= end:
        yield month
        month = next_month(month)


def months_to_come(now: datetime) -> tuple[datetime, ...]:
    """First instants of the month that holds `now` and of the `MONTHS_AHEAD` after it."""
    months = [month_of(now)]
    for _ in range(MONTHS_AHEAD):
        months.append(next_month(months[-1]))
    return tuple(months)


def partition_name(table: str, month: datetime) -> str:
    """`charges_2018_04` for charges and April 2018."""
    return f"{table}_{month:%Y_%m}"


def ensure_partitions(connection: psycopg.Connection, months: Iterable[datetime]) -> tuple[str, ...]:
    """Make the missing partitions of all monthly tables; return the names of those made here.

    One that somebody else makes at the same time is made once. Rows of such a month that lie in the default
    partition move with it; change consumers see each of them deleted and inserted unchanged, in one transaction.
    Raises `PartitionNotMade` when a table stays in use for `LOCK_LIMIT`. Each partition is a transaction of its own
    where the connection commits by itself.
    """
    tables = [table.name for table in CAPTURED_TABLES if table.monthly]
    wanted = [(table, month) for month in sorted({month_of(month) for month in months}) for table in tables]
    present = _partitions(connection)
    made: list[str] = []
    for table, month in wanted:
        if partition_name(table, month) not in present and _make(connection, table, month):
            made.append(partition_name(table, month))
    return tuple(made)


def in_short_waits(connection: psycopg.Connection, act: Callable[[], T]) -> T:
    """Run `act` in a transaction that waits for no lock longer than `LOCK_WAIT`, and again until `LOCK_LIMIT` is over.

    Between two attempts nothing is held. Raises `psycopg.errors.LockNotAvailable` in the end.
    """

    def attempt() -> T:
        with connection.transaction():
            wait = f"{LOCK_WAIT // timedelta(milliseconds=1)}ms"
            connection.execute("SELECT set_config('lock_timeout', %s, true)", [wait])
            return act()

    attempts = Retrying(
        retry=retry_if_exception_type(psycopg.errors.LockNotAvailable),
        stop=stop_after_delay(LOCK_LIMIT),
        wait=wait_exponential_jitter(multiplier=0.1, max=2),
        reraise=True,
    )
    return attempts(attempt)


def _partitions(connection: psycopg.Connection) -> set[str]:
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relispartition", [SCHEMA]
    )
    return {name for (name,) in names}


def _make(connection: psycopg.Connection, table: str, month: datetime) -> bool:
    name = partition_name(table, month)

    def create() -> bool:
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(SCHEMA, table)))
        # Somebody else may have made it before the lock was ours.
        if name in _partitions(connection):
            return False
        strays = _take_from_default(connection, table, month)
        connection.execute(
            sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
                sql.Identifier(SCHEMA, name),
                sql.Identifier(SCHEMA, table),
                sql.Literal(month),
                sql.Literal(next_month(month)),
            )
        )
        connection.execute("CALL payments.guard_against_truncate(%s::regclass)", [f"{SCHEMA}.{name}"])
        if strays:
            _put_back(connection, table)
        return True

    try:
        return in_short_waits(connection, create)
    except psycopg.errors.LockNotAvailable as error:
        raise PartitionNotMade(name) from error


def _take_from_default(connection: psycopg.Connection, table: str, month: datetime) -> int:
    default = sql.Identifier(SCHEMA, f"{table}_default")
    bounds = {"first": month, "end": next_month(month)}
    in_month = sql.SQL("created >= %(first)s AND created < %(end)s")
    found = connection.execute(sql.SQL("SELECT FROM {} WHERE {} LIMIT 1").format(default, in_month), bounds).fetchone()
    if found is None:
        return 0
    # The rows are away for a moment only and under an exclusive lock: foreign keys that point to them hold
    # again before anyone can look.
    connection.execute("SET LOCAL session_replication_role = replica")
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE strays ON COMMIT DROP AS SELECT * FROM {} WHERE {}").format(default, in_month),
        bounds,
    )
    return connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(default, in_month), bounds).rowcount


def _put_back(connection: psycopg.Connection, table: str) -> None:
    # Through the root: what is written into a partition before it belongs to the root is never published.
    connection.execute(sql.SQL("INSERT INTO {} SELECT * FROM pg_temp.strays").format(sql.Identifier(SCHEMA, table)))
    connection.execute("DROP TABLE pg_temp.strays")
    connection.execute("SET LOCAL session_replication_role = origin")
