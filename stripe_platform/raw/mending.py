"""Making up for holes: changes that were lost before they came to Kafka, so that no offset is missing.

The log is drained to the topic's end and gets a gap mark there: nothing known before it counts. Then every living row
is read again behind the mark. A row that was deleted in the hole comes no more, and is forgotten.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from stripe_platform.cdc.holes import known_holes
from stripe_platform.cdc.offsets import last_stable_offsets, topic_ids
from stripe_platform.cdc.snapshot import SnapshotTaken
from stripe_platform.raw.change_log import GAP, ChangeLog, LostRace, retry_lost_race
from stripe_platform.raw.definition import postgres_clock, table_definition
from stripe_platform.raw.drain import drain_up_to
from stripe_platform.settings import Settings

# Has every living row of the tables written into their topics; returns when the last of them is visible there.
TakeSnapshots = Callable[[Sequence[str]], Iterable[SnapshotTaken]]


def open_holes(settings: Settings, tables: Iterable[str]) -> dict[str, str]:
    """{table: the id of its last hole} of the tables whose logs have not made up for it."""
    holes = known_holes(settings)
    return not_made_up_for(settings, {table: holes[table] for table in tables if table in holes})


def not_made_up_for(settings: Settings, holes: Mapping[str, str]) -> dict[str, str]:
    """Of the holes {table: id} those for which the table's log has not made up."""
    return {table: hole for table, hole in holes.items() if not _has_made_up_for(settings, table, hole)}


def mend(settings: Settings, holes: Mapping[str, str], *, take_snapshots: TakeSnapshots, limit: timedelta) -> None:
    """Have the logs of the tables make up for these holes, and drain them to the end of the snapshot.

    Others may drain meanwhile. Until it is done no cut above the marks is built on; ended at any point, it is called
    again, and reads the tables again. Errors as `drain_up_to` and `take_snapshots`.
    """
    tables = list(holes)
    for table in tables:
        _mark(settings, table, limit)
    _read_again(tables, take_snapshots, postgres_clock(settings))
    whole = last_stable_offsets(settings, tables)
    for table in tables:
        _close(settings, table, holes[table], whole[table])
    drain_up_to(settings, tables, whole, limit=limit)


def _has_made_up_for(settings: Settings, table: str, hole: str) -> bool:
    log = ChangeLog.existing(settings, table)
    return log is not None and log.has_made_up_for(hole)


@retry_lost_race
def _mark(settings: Settings, table: str, limit: timedelta) -> None:
    """Nothing that the log of the table knows now counts any more.

    A mark stands just below the next offset, where a transaction's end has left a place: behind all that staging may
    have taken in, before all that will be read again.
    """
    drain_up_to(settings, [table], last_stable_offsets(settings, [table]), limit=limit)
    log = _log(settings, table)
    ends = {partition: offset for partition, offset in log.next_offsets.items() if offset > 0}
    stored = log.operations_at({partition: offset - 1 for partition, offset in ends.items()})
    if set(stored.values()) - {GAP}:
        # Another drain is in the midst of a transaction.
        raise LostRace(table)
    unmarked = {partition: offset for partition, offset in ends.items() if partition not in stored}
    # A cut that ends at the mark would see it, and none of the rows.
    log.record_gaps(unmarked, {partition: offset + 1 for partition, offset in ends.items()})


def _read_again(tables: list[str], take_snapshots: TakeSnapshots, marked_at: datetime) -> None:
    missing = tables
    while missing:
        # One that was under way has rows before the mark.
        taken = {snapshot.table for snapshot in take_snapshots(missing) if snapshot.requested_at >= marked_at}
        missing = [table for table in missing if table not in taken]


@retry_lost_race
def _close(settings: Settings, table: str, hole: str, whole_from: Mapping[int, int]) -> None:
    _log(settings, table).record_made_up_for(hole, whole_from)


def _log(settings: Settings, table: str) -> ChangeLog:
    topic_id = topic_ids(settings, [table])[table]
    return ChangeLog.open(settings, table, row=table_definition(settings, table), topic_id=topic_id)
