"""Snapshots of captured tables by Debezium's incremental snapshot: taken while changes stream, resumed after a kill."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from stripe_platform.cdc import snapshot_notices, snapshot_registry
from stripe_platform.cdc.broker import BrokerUnavailable
from stripe_platform.cdc.connect import ConnectClient, ConnectUnavailable
from stripe_platform.cdc.connector import (
    CONNECTOR,
    HALTED,
    NOT_REGISTERED,
    PositionLost,
    connector_config,
    connector_state,
    is_streaming,
    lost_position,
)
from stripe_platform.cdc.holes import ChangesLost, holed, known_holes
from stripe_platform.cdc.offsets import all_written_visible
from stripe_platform.cdc.slot import slot_state
from stripe_platform.cdc.snapshot_notices import Notice, Notices
from stripe_platform.cdc.snapshot_registry import Request, SnapshotTaken, pending_snapshots
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.connection import PostgresUnavailable, connect
from stripe_platform.oltp.tables import CAPTURED_TABLES, TABLES_BY_NAME
from stripe_platform.settings import Settings

__all__ = [
    "SNAPSHOT_LIMIT",
    "NotCaptured",
    "SnapshotNotTaken",
    "SnapshotProgress",
    "SnapshotTaken",
    "pending_snapshots",
    "take_snapshots",
]

# For whole snapshots of large tables, which change on meanwhile.
SNAPSHOT_LIMIT = timedelta(hours=6)
# How often a table is asked for again when the connector gave it up, as it does when it loses PostgreSQL.
ATTEMPTS = 3
# How often the connector is looked at while its notices are awaited.
LOOK = timedelta(seconds=3)
# A Connect worker that has just started says for some seconds that it has no connector.
CONNECT_STARTS_WITHIN = timedelta(seconds=60)
# Our word for the end of a request beside Debezium's, and what is to be known of these.
LOST = "LOST"
REASONS = {
    LOST: "the connector knows nothing of the request: its offsets or its slot were made anew",
    "UNKNOWN_SCHEMA": "the connector does not capture it: register the connector with `stripe-platform up`",
    "SQL_EXCEPTION": "a query of its rows failed, see Connect's log",
    "ABORTED": "it was stopped by a signal",
}
PASSING = (ConnectUnavailable, BrokerUnavailable, PostgresUnavailable, psycopg.OperationalError)


class NotCaptured(StripePlatformError):
    """A table was named that is not captured."""

    def __init__(self, tables: Sequence[str]) -> None:
        super().__init__(
            f"not a captured table: {', '.join(tables)}; the captured ones are {', '.join(TABLES_BY_NAME)}"
        )


class SnapshotNotTaken(StripePlatformError):
    """Tables could not be taken in time, or the connector cannot take them."""

    def __init__(self, tables: Sequence[str], waited: float, reason: str) -> None:
        super().__init__(
            f"no snapshot of {', '.join(tables) or 'any table'} after {waited:.0f} s: {reason}; nothing is lost: "
            "mend the cause (see `stripe-platform status` and Connect's log) and go on with `stripe-platform snapshot`"
        )


@dataclass(frozen=True)
class SnapshotProgress:
    """How far the snapshot of a table is.

    `rows` are at most so many, for chunks are counted; `estimated_rows` is PostgreSQL's estimate of the whole
    table, None where it has none; `is_complete` when all rows are committed in the topic.
    """

    table: str
    rows: int
    estimated_rows: int | None
    is_complete: bool = False


Progress = Callable[[SnapshotProgress], None]


def take_snapshots(
    settings: Settings,
    tables: Sequence[str] | None = None,
    *,
    again: bool = False,
    limit: timedelta,
    progress: Progress | None = None,
) -> tuple[SnapshotTaken, ...]:
    """Have the tables (default: those that need it) taken; all their rows are committed when it returns.

    A table that has been taken into its topic is left alone unless `again`: the way back when a consumer has
    lost records. A snapshot that is under way, be it of a process that was killed, is waited for and counts.
    Changes stream meanwhile. Returns what was taken, in the order in which it ended.

    `ChangesLost`, unless `again`, when a table needs it for changes that never came to Kafka: the stores have to forget
    what they know of it first, which `stripe-platform recover` sees to.

    `SnapshotNotTaken` after `limit`, or at once when the connector has failed or is halted (`PositionLost`: for good);
    what was taken by then stays so, and the next call goes on. `NotCaptured` for a table that is not captured.
    """
    if unknown := [table for table in tables or () if table not in TABLES_BY_NAME]:
        raise NotCaptured(unknown)
    work = _Snapshots(settings, limit, progress or _silent)
    return work.take(None if tables is None else list(tables), again=again)


def _silent(_: SnapshotProgress) -> None:
    pass


class _Snapshots:
    """One call of `take_snapshots`, under one limit."""

    def __init__(self, settings: Settings, limit: timedelta, progress: Progress) -> None:
        self._settings, self._progress = settings, progress
        self._started = time.monotonic()
        self._limit = limit.total_seconds()
        self._failures: Counter[str] = Counter()
        self._taken: list[SnapshotTaken] = []
        self._trouble = (
            "the connector has not told that it is done; if it stands still after an error of PostgreSQL, "
            "`stripe-platform down` and `up` make it go on at its chunk"
        )
        self._registered_at = self._started

    def take(self, tables: list[str] | None, *, again: bool) -> tuple[SnapshotTaken, ...]:
        while not self._patiently(tables or [], lambda: self._is_done(tables, again=again)):
            pass
        return tuple(self._taken)

    def _is_done(self, tables: list[str] | None, *, again: bool) -> bool:
        missing = self._missing(tables, again=again)
        if missing:
            self._take_some(missing)
        return not missing

    def _missing(self, tables: list[str] | None, *, again: bool) -> list[str]:
        pending = pending_snapshots(self._settings)
        if again:
            # Taken into the topic of now: one made anew meanwhile is pending.
            done = {taken.table for taken in self._taken} - set(pending)
            wanted = [table.name for table in CAPTURED_TABLES] if tables is None else tables
            return [table for table in wanted if table not in done]
        wanted = [table for table in pending if tables is None or table in tables]
        if lost := holed(wanted, known_holes(self._settings) if wanted else {}):
            raise ChangesLost(lost)
        return wanted

    def _patiently(self, tables: list[str], step: Callable[[], bool]) -> bool:
        """The step's answer; False while a server is away, which may come back until time is over."""
        try:
            return step()
        except PASSING as failure:
            self._trouble = str(failure).splitlines()[0]
            self.check_time(tables)
            time.sleep(0.5)
            return False

    def _take_some(self, missing: list[str]) -> None:
        self._until_connector_streams(missing)
        request = snapshot_registry.request(self._settings, missing)
        with Notices(self._settings) as notices:
            _Watch(self, request).until_ended(notices)

    def _until_connector_streams(self, missing: list[str]) -> None:
        """What is signalled before the slot's starting point would never be read."""
        while True:
            self._look_at_state(missing)
            if is_streaming(self._settings):
                return
            slot = slot_state(self._settings)
            self._trouble = slot.describe() if slot else "there is no replication slot yet"
            self.check_time(missing)
            time.sleep(0.2)

    def _look_at_state(self, tables: list[str]) -> bool:
        if reason := lost_position(self._settings):
            raise PositionLost(reason)
        state = connector_state(self._settings)
        if state.connector != NOT_REGISTERED:
            self._registered_at = time.monotonic()
        is_gone = time.monotonic() - self._registered_at > CONNECT_STARTS_WITHIN.total_seconds()
        if state.has_failed or state.connector in HALTED or is_gone:
            raise SnapshotNotTaken(tables, self.waited, state.describe())
        return True

    def check_time(self, tables: list[str]) -> None:
        if self.waited > self._limit:
            raise SnapshotNotTaken(tables, self.waited, self._trouble)

    def look(self, tables: list[str]) -> None:
        """The connector must not have failed; a server that is away may come back."""
        self._patiently(tables, lambda: self._look_at_state(tables))

    def tell(self, progress: SnapshotProgress) -> None:
        self._progress(progress)

    def completed(self, request: Request, table: str, rows: int) -> None:
        all_written_visible(self._settings, [table], lambda: self.check_time([table]))
        self._taken.append(snapshot_registry.record_completed(self._settings, request, table, rows))
        self.tell(SnapshotProgress(table, rows, rows, is_complete=True))

    def failed(self, request: Request, table: str, failure: str) -> None:
        snapshot_registry.record_failed(self._settings, request, table, failure)
        self._failures[table] += 1
        if self._failures[table] == ATTEMPTS:
            raise SnapshotNotTaken([table], self.waited, f"given up {ATTEMPTS} times: {REASONS.get(failure, failure)}")

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def waited(self) -> float:
        return time.monotonic() - self._started


class _Watch:
    """Follows one request until every table of it has ended."""

    def __init__(self, work: _Snapshots, request: Request) -> None:
        self._work, self._request = work, request
        self._open = dict(request.topic_ids)
        self._chunks: dict[str, set[str]] = {}
        self._estimates: dict[str, int | None] = {}
        self._since = _log_position(work.settings)
        self._looked_at = time.monotonic()
        self._seemed_lost = False

    def until_ended(self, notices: Notices) -> None:
        while self._open:
            for notice in notices.new(wait=0.2):
                if notice.signal_id == self._request.signal_id:
                    self._seemed_lost = False
                    self._take_note(notice)
            if self._open:
                self._work.check_time(list(self._open))
            if self._open and time.monotonic() - self._looked_at > LOOK.total_seconds():
                self._looked_at = time.monotonic()
                self._work.look(list(self._open))
                self._give_up_if_lost()

    def _take_note(self, notice: Notice) -> None:
        if notice.kind in snapshot_notices.STOPPED:
            for table in list(self._open):
                self._end(table, notice.kind, 0)
        elif notice.table in self._open:
            if notice.kind == snapshot_notices.IN_PROGRESS:
                self._tell_progress(notice.table, notice.chunk or "")
            elif notice.kind == snapshot_notices.TABLE_ENDED:
                self._end(notice.table, notice.status or "", notice.rows)

    def _end(self, table: str, status: str, rows: int) -> None:
        if status in snapshot_notices.TAKEN:
            self._work.completed(self._request, table, rows)
        else:
            self._work.failed(self._request, table, status)
        del self._open[table]

    def _tell_progress(self, table: str, chunk: str) -> None:
        # A chunk that is read again after a restart counts once.
        chunks = self._chunks.setdefault(table, set())
        chunks.add(chunk)
        if table not in self._estimates:
            self._estimates[table] = snapshot_registry.estimated_rows(self._work.settings, table)
        rows = len(chunks) * int(connector_config()["incremental.snapshot.chunk.size"])
        self._work.tell(SnapshotProgress(table, rows, self._estimates[table]))

    def _give_up_if_lost(self) -> None:
        """A connector that has read past the request and takes nothing has lost it, with its offsets or its slot.

        Only when it seems so twice: the notice of the end may be on its way.
        """
        seems_lost = self._has_read_past_and_takes_nothing()
        if seems_lost and self._seemed_lost:
            for table in list(self._open):
                self._end(table, LOST, 0)
        self._seemed_lost = seems_lost

    def _has_read_past_and_takes_nothing(self) -> bool:
        try:
            stored = ConnectClient(self._work.settings.connect_url, LOOK).offsets(CONNECTOR)
        except ConnectUnavailable:
            return False
        offset = stored[0]["offset"] if stored else {}
        return offset.get("lsn", 0) > self._since and not offset.get("incremental_snapshot_collections")


def _log_position(settings: Settings) -> int:
    with connect(settings) as postgres:
        ((position,),) = postgres.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint").fetchall()
    return int(position)
