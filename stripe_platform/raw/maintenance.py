"""Upkeep of the raw change log: small files become large ones, and what nobody reads any more is deleted."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import log_folder
from stripe_platform.raw.rewriting import only_rewriter
from stripe_platform.settings import Settings

# Large enough that a year of a busy table is some hundred files, small enough that the last one, not yet full, is
# written anew each night in seconds; Snowflake's advice for its loads is 100 to 250 MB.
TARGET_BYTES = 128 * 1024 * 1024
# DuckDB's own unit, by which it also shares a file among its threads. With larger groups the next build would read
# more of the file to find what is new.
ROW_GROUP_ROWS = 122_880
WRITER = WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=ROW_GROUP_ROWS)

# For how long files that are no longer in the log stay for those who listed them before. A build reads for 30 min and
# no run of Dagster for more than an hour; a day is for people, who leave a query open. Delta's own 7 days would hold
# seven nights' copies of the file that is not yet full.
KEPT = timedelta(hours=24)
# A file being written is in no version yet: it, too, is safe by its age alone.
SHORTEST_KEPT = timedelta(hours=2)
# Past this a checkpoint no longer names what was removed (`delta.deletedFileRetentionDuration`, 7 days unless set).
LONGEST_KEPT = timedelta(days=6)

# Nobody travels in time: what a reader or writer needs of the log's past is minutes old. The default is 30 days, which
# for a busy table would be 170,000 files.
LOG_KEPT = {"delta.logRetentionDuration": "interval 2 days"}

ATTEMPTS = 3


class RetentionTooShort(StripePlatformError):
    """Files would be deleted while a build reads them or a drain writes them."""

    def __init__(self, kept: timedelta) -> None:
        super().__init__(
            f"files of the raw change log cannot be deleted {kept} after they were replaced: builds and drains may "
            f"still use them; keep them for {SHORTEST_KEPT} or more"
        )


class TablesNotMaintained(StripePlatformError):
    """Some logs were left as they were; `maintained` are the others."""

    def __init__(self, maintained: "dict[str, TableMaintained]", errors: dict[str, str]) -> None:
        super().__init__(
            "; ".join(f"raw/{table} was not maintained: {error}" for table, error in errors.items())
            + "; nothing is lost by it: the next lake_maintenance tries again"
        )
        self.maintained = maintained


@dataclass(frozen=True)
class TableMaintained:
    """What the upkeep of one log did: files and bytes are those of its newest version, `deleted` those on disk.

    `is_compacted` is false when deletions were in the way each time: the small files are the next night's.
    """

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    files_deleted: int
    bytes_deleted: int
    is_compacted: bool
    seconds: float


def maintain_all(
    settings: Settings, *, read_since: datetime | None = None, tables: Iterable[str] = TABLES_BY_NAME
) -> dict[str, TableMaintained]:
    """Maintain every log that has begun; one that fails keeps the others from nothing (`TablesNotMaintained`)."""
    maintained: dict[str, TableMaintained] = {}
    errors: dict[str, str] = {}
    for table in tables:
        if not DeltaTable.is_deltatable(str(log_folder(settings, table))):
            continue
        try:
            maintained[table] = maintain(settings, table, read_since=read_since)
        except (DeltaError, OSError, StripePlatformError) as error:
            # Delta's own text goes on with a trace.
            errors[table] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if errors:
        raise TablesNotMaintained(maintained, errors)
    return maintained


def maintain(
    settings: Settings, table: str, *, read_since: datetime | None = None, kept: timedelta = KEPT
) -> TableMaintained:
    """Compact, delete what nobody reads, write a checkpoint and drop old log entries; idle logs stay untouched.

    Beside drains and readers: no row and no offset changes, a drain at work goes on, and what was listed less than
    `kept` ago, or at `read_since` or later, can still be read. `RetentionTooShort` below `SHORTEST_KEPT`;
    `NotEnoughDisk` when what nobody reads is deleted and there is still no room to compact.
    """
    if kept < SHORTEST_KEPT:
        raise RetentionTooShort(kept)
    started = time.monotonic()
    folder = log_folder(settings, table)
    age = datetime.now(UTC) - read_since if read_since else kept
    with only_rewriter(folder):
        files_before, bytes_before = _files_and_bytes(folder)
        # What makes room first: on a full disk it is all that is done.
        files_deleted, bytes_deleted = _delete_unread(folder, max(kept, age))
        check_free_space(settings)
        is_compacted = _compact(folder)
        files_after, bytes_after = _files_and_bytes(folder)
        _shorten_log(folder)
    return TableMaintained(
        files_before,
        files_after,
        bytes_before,
        bytes_after,
        files_deleted,
        bytes_deleted,
        is_compacted,
        time.monotonic() - started,
    )


def _files_and_bytes(folder: Path) -> tuple[int, int]:
    sizes = pa.table(DeltaTable(folder).get_add_actions(flatten=True))["size_bytes"]
    return len(sizes), pc.sum(sizes).as_py() or 0


def _compact(folder: Path) -> bool:
    """Whether it came through: an append beside it passes, a deletion or a change of columns refuses it."""
    attempts = Retrying(
        retry=retry_if_exception_type(CommitFailedError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=0.5, max=5),
        reraise=True,
    )
    try:
        # Opened anew for each attempt; files keep their order, so that row groups still tell their offsets.
        attempts(
            lambda: DeltaTable(folder).optimize.compact(
                target_size=TARGET_BYTES, max_concurrent_tasks=1, writer_properties=WRITER
            )
        )
    except CommitFailedError:
        return False
    return True


def _delete_unread(folder: Path, kept: timedelta) -> tuple[int, int]:
    """Files and bytes deleted: those replaced before, and those that a killed drain left without a commit."""
    if kept > LONGEST_KEPT:
        return 0, 0
    delta, hours = DeltaTable(folder), math.ceil(kept / timedelta(hours=1))
    unread = delta.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
    size = sum((folder / file).stat().st_size for file in unread)
    delta.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
    return len(unread), size


def _shorten_log(folder: Path) -> None:
    delta = DeltaTable(folder)
    configuration = delta.metadata().configuration
    if not LOG_KEPT.items() <= configuration.items():
        delta.alter.set_table_properties(LOG_KEPT)
    delta.create_checkpoint()
    delta.cleanup_metadata()
