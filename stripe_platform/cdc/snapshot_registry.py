"""Which table was taken into which topic, and requests to the connector to take one; all in PostgreSQL."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import psycopg

from stripe_platform.cdc.holes import known_holes, notice_new_streams
from stripe_platform.cdc.offsets import topic_ids
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.catalog import all_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.replication import SIGNALS_SCHEMA, SIGNALS_TABLE
from stripe_platform.oltp.tables import CAPTURED_TABLES, TABLES_BY_NAME
from stripe_platform.privacy.columns import personal_columns
from stripe_platform.settings import Settings

# Any fixed number serves: whoever requests waits for whoever is requesting.
_LOCK = 7_316_410_053

_UNDER_WAY = """
SELECT signal_id, table_name, topic_id, requested_at FROM cdc.snapshots
WHERE completed_at IS NULL AND failure IS NULL
"""
_END = """
UPDATE cdc.snapshots SET completed_at = %(completed_at)s, rows = %(rows)s, failure = %(failure)s
WHERE signal_id = %(signal_id)s AND table_name = %(table)s AND completed_at IS NULL AND failure IS NULL
"""

# A snapshot from before a hole does not hold what came of the changes that were lost.
_TAKEN = """
SELECT table_name, topic_id FROM cdc.snapshots AS taken
WHERE
    completed_at IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM cdc.holes
        WHERE holes.table_name = taken.table_name AND holes.number > coalesce(taken.hole, 0)
    )
"""
_REQUESTED = """
INSERT INTO cdc.snapshots (signal_id, table_name, topic_id, hole)
VALUES (%(signal_id)s, %(table)s, %(topic_id)s, (SELECT max(number) FROM cdc.holes WHERE table_name = %(table)s))
"""

# The tree of a table that has no partitions is empty.
_ESTIMATE = """
SELECT sum(reltuples)::bigint FROM pg_class
WHERE
    reltuples >= 0 AND relkind = 'r'
    AND (
        oid = %(table)s::regclass OR oid IN (SELECT tree.relid FROM pg_partition_tree(%(table)s) AS tree)
    )
"""


class PersonalColumnsNotLast(StripePlatformError):
    """A table cannot be taken: the connector would take the values of streamed changes for those of other columns.

    Debezium matches the two by place, and begins an incremental snapshot with the columns of the catalog, those
    included that the publication leaves out.
    """

    def __init__(self, table: str, column: str) -> None:
        super().__init__(
            f"no snapshot of {table}: its column {column} comes after a personal one, so that a snapshot would mix up "
            "the columns of changes that stream meanwhile; write a migration that moves the personal columns behind "
            "all others, as 0014_personal_columns_last.sql does"
        )


@dataclass(frozen=True)
class Request:
    """One signal to the connector; `topic_ids` has the tables whose snapshots have not ended, with their topics."""

    signal_id: str
    requested_at: datetime
    topic_ids: dict[str, str]


@dataclass(frozen=True)
class SnapshotTaken:
    """All rows of a table, as they were at some moment between the two times, are committed in the topic.

    `rows` is the connector's own count; it begins anew when the connector is started.
    """

    table: str
    topic_id: str
    rows: int
    requested_at: datetime
    completed_at: datetime

    @property
    def seconds(self) -> float:
        """From the request to the end."""
        return (self.completed_at - self.requested_at).total_seconds()


def pending_snapshots(settings: Settings) -> tuple[str, ...]:
    """The captured tables that have not been taken, since their last hole, into the topic that has their name now."""
    notice_new_streams(settings)
    return recorded_pending(settings)


def recorded_pending(settings: Settings) -> tuple[str, ...]:
    """As `pending_snapshots`, by the holes noticed so far; changes nothing."""
    ids = topic_ids(settings, [table.name for table in CAPTURED_TABLES])
    with connect(settings) as postgres:
        taken = set(postgres.execute(_TAKEN))
    return tuple(table for table, topic_id in ids.items() if (table, topic_id) not in taken)


def request_pending(settings: Settings) -> None:
    """Request the pending snapshots, unless some are under way.

    Left out are tables that cannot be taken, which fail the next cut, and tables with a hole: stores forget first.
    """
    pending = pending_snapshots(settings)
    holes = known_holes(settings) if pending else {}
    if tables := [table for table in pending if table not in holes]:
        with suppress(PersonalColumnsNotLast):
            request(settings, tables)


def request(settings: Settings, tables: Iterable[str]) -> Request:
    """Ask the connector to take the tables; when an earlier request is under way, return that and ask nothing.

    One request at a time: what the connector tells of a snapshot bears the id of the last signal it has seen.
    Signal and record are one transaction, so that a killed process leaves both or none. A table that cannot be taken
    while changes stream is left out, and `PersonalColumnsNotLast` when no other is asked for.
    """
    ids = topic_ids(settings, tables)
    with connect(settings) as postgres:
        postgres.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if under_way := _under_way(postgres):
            return under_way
        _signal(postgres, _without_refused(postgres, ids))
        made = _under_way(postgres)
    if made is None:
        raise ValueError("a request needs a table")
    return made


def _without_refused(postgres: psycopg.Connection, ids: dict[str, str]) -> dict[str, str]:
    columns = all_columns(postgres)
    misplaced = {table: _misplaced(table, [column.name for column in columns[table]]) for table in ids}
    fit = {table: topic_id for table, topic_id in ids.items() if not misplaced[table]}
    for table, names in misplaced.items():
        if not fit and names:
            raise PersonalColumnsNotLast(table, names[0])
    return fit


def _misplaced(table: str, names: list[str]) -> list[str]:
    """The table's columns that come after a personal one and are none."""
    personal = personal_columns().get(table, frozenset())
    first = min((names.index(name) for name in personal), default=len(names))
    return [name for name in names[first:] if name not in personal]


def _under_way(postgres: psycopg.Connection) -> Request | None:
    rows = postgres.execute(_UNDER_WAY).fetchall()
    if not rows:
        return None
    signal_id, _, _, requested_at = rows[0]
    return Request(signal_id, requested_at.astimezone(UTC), {table: topic_id for _, table, topic_id, _ in rows})


def _signal(postgres: psycopg.Connection, ids: dict[str, str]) -> None:
    signal_id = str(uuid4())
    wanted = {"type": "incremental", "data-collections": [TABLES_BY_NAME[table].qualified for table in ids]}
    postgres.execute(
        f"INSERT INTO {SIGNALS_SCHEMA}.{SIGNALS_TABLE} (id, type, data) VALUES (%s, 'execute-snapshot', %s)",
        [signal_id, json.dumps(wanted)],
    )
    # A hole that is being recorded is waited for.
    postgres.execute("LOCK TABLE cdc.holes IN SHARE MODE")
    with postgres.cursor() as cursor:
        cursor.executemany(
            _REQUESTED,
            [{"signal_id": signal_id, "table": table, "topic_id": topic_id} for table, topic_id in ids.items()],
        )


def record_completed(settings: Settings, request: Request, table: str, rows: int) -> SnapshotTaken:
    """Record that the table is taken; to be called when all its rows are committed in its topic."""
    now = datetime.now(UTC)
    _record_end(settings, request, table, completed_at=now, rows=rows, failure=None)
    return SnapshotTaken(table, request.topic_ids[table], rows, request.requested_at, now)


def record_failed(settings: Settings, request: Request, table: str, failure: str) -> None:
    """Record that this request will not take the table; a new one may."""
    _record_end(settings, request, table, completed_at=None, rows=None, failure=failure)


def _record_end(settings: Settings, request: Request, table: str, **end: datetime | int | str | None) -> None:
    with connect(settings) as postgres:
        postgres.execute(_END, {"signal_id": request.signal_id, "table": table, **end})


def estimated_rows(settings: Settings, table: str) -> int | None:
    """PostgreSQL's estimate of the rows of the table with its partitions; None where it has none."""
    with connect(settings) as postgres:
        ((rows,),) = postgres.execute(_ESTIMATE, {"table": TABLES_BY_NAME[table].qualified}).fetchall()
    return None if rows is None else int(rows)
