"""What Dagster's own deletion of a run leaves behind in its storage: files of runs, check results, free pages.

Dagster keeps everything in SQLite unless it is configured otherwise: an index, and a file (a shard) of events for
each run, which stays when the run is deleted. On another storage only the check results are ours to delete.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

from stripe_platform.errors import StripePlatformError

# Rows a transaction: Dagster's writers wait behind it.
CHECK_RESULTS_AT_ONCE = 2_000
PAGES_AT_ONCE = 1_000
# As long as Dagster waits itself before it gives up.
BUSY_LIMIT_S = 5
# Less than this is taken again by the next day's runs.
SPARE_SHARE = 0.25
# A file is written anew in one transaction: of so much in some three seconds, and nobody else waits longer.
LARGEST_REWRITTEN_BYTES = 128 * 1024 * 1024
# SQLite's number for it: free pages can be given back bit by bit.
INCREMENTAL = 2


class NotCompacted(StripePlatformError):
    """A database keeps its free pages; Dagster fills them again before the file grows."""


def databases(instance: dg.DagsterInstance) -> tuple[Path, ...]:
    """The database files that are there for good; none where Dagster's storage is not SQLite."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return ()
    index = Path(storage.path_for_shard("index"))
    history = index.parent.parent
    files = (history / "runs.db", index, history.parent / "schedules" / "schedules.db")
    return tuple(file for file in files if file.exists())


def forget_shard(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove the file of a deleted run's events, where there is one."""
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        shard = storage.path_for_shard(run_id)
        # The file itself last: it is what a purge that was cut short is found by.
        for file in (f"{shard}-wal", f"{shard}-shm", shard):
            Path(file).unlink(missing_ok=True)


def shards_without_run(instance: dg.DagsterInstance, before: datetime) -> Iterator[str]:
    """Ids of runs that are deleted but for their files, last written before the given time."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return
    index = Path(storage.path_for_shard("index"))
    known = {index.stem, *instance.get_run_ids()}
    for shard in sorted(index.parent.glob("*.db")):
        # What begins with a dot are the events of no run.
        is_of_run = shard.stem not in known and not shard.name.startswith(".")
        if is_of_run and shard.stat().st_mtime < before.timestamp():
            yield shard.stem


def delete_check_results(instance: dg.DagsterInstance, before: datetime, deadline: float) -> int:
    """Delete results of checks from before the time, but of each check the newest; their number.

    Dagster keeps them when it deletes their run: of a build with its tests they are the largest part.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    results = AssetCheckExecutionsTable
    newest = db.select(db.func.max(results.c.id)).group_by(results.c.asset_key, results.c.check_name)
    with storage.index_connection() as connection:
        kept = [row[0] for row in connection.execute(newest)]
    oldest = (
        db.select(results.c.id, results.c.create_timestamp)
        .where(results.c.id.not_in(kept))
        .order_by(results.c.id)
        .limit(CHECK_RESULTS_AT_ONCE)
    )
    deleted, is_over = 0, False
    while not is_over and time.monotonic() < deadline:
        with storage.index_connection() as connection:
            rows = connection.execute(oldest).fetchall()
            # Dagster writes them without a time zone, in UTC.
            ids = [row.id for row in rows if row.create_timestamp < before.replace(tzinfo=None)]
            connection.execute(db.delete(results).where(results.c.id.in_(ids)))
        deleted += len(ids)
        is_over = len(ids) < CHECK_RESULTS_AT_ONCE
    return deleted


def compact(database: Path, deadline: float) -> None:
    """Give the free pages of a SQLite file back to the disk, when they are many; `NotCompacted` says why not.

    Bit by bit, so that no writer waits for long. A file that cannot do that yet is once written anew, while it is
    small enough.
    """
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_LIMIT_S, isolation_level=None)) as connection:
            if _number(connection, "auto_vacuum") != INCREMENTAL:
                _rewrite(connection)
            if _free_share(connection) > SPARE_SHARE:
                _shorten(connection, deadline)
            # What was written is in the log beside the file until then.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        raise NotCompacted(f"SQLite: {error}; the next dagster_maintenance tries again") from error


def _rewrite(connection: sqlite3.Connection) -> None:
    used = (_number(connection, "page_count") - _number(connection, "freelist_count")) * _number(
        connection, "page_size"
    )
    if used > LARGEST_REWRITTEN_BYTES:
        raise NotCompacted(
            f"{used:,} bytes would be written anew while Dagster waits: with Dagster stopped, "
            "`sqlite3 FILE 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'`"
        )
    connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
    connection.execute("VACUUM")


def _shorten(connection: sqlite3.Connection, deadline: float) -> None:
    while _number(connection, "freelist_count") and time.monotonic() < deadline:
        connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()


def _free_share(connection: sqlite3.Connection) -> float:
    return _number(connection, "freelist_count") / max(1, _number(connection, "page_count"))


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)
