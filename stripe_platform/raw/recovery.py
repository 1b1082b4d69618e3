"""The way back for logs that changes are missing from: before Kafka, or deleted there unread, or with a topic.

What was lost cannot be read any more, but PostgreSQL still has what came of it: an incremental snapshot writes every
living row into the topic, and a gap mark in the log says that nothing known before it counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from stripe_platform.cdc.connector import PositionLost, lost_position
from stripe_platform.cdc.offsets import beginning_offsets, last_stable_offsets, topic_ids
from stripe_platform.cdc.reader import OffsetsOutOfRange
from stripe_platform.cdc.renewal import begin_anew, go_on
from stripe_platform.cdc.snapshot import SNAPSHOT_LIMIT, take_snapshots
from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import ChangeLog, next_offsets, retry_lost_race, set_aside
from stripe_platform.raw.definition import postgres_clock, require_captured, table_definition
from stripe_platform.raw.drain import SINK, drain_up_to
from stripe_platform.raw.mending import TakeSnapshots, mend, open_holes
from stripe_platform.settings import Settings

Offsets = dict[str, dict[int, int]]

ATTEMPTS = 3


class RowsLostAgain(StripePlatformError):
    """Rows were deleted from the topic while the snapshot that wrote them was still being taken."""

    def __init__(self, tables: Iterable[str]) -> None:
        topics = ", ".join(topic_for(table) for table in tables)
        super().__init__(
            f"{ATTEMPTS} snapshots in a row lost rows before they were whole: the retention of {topics} is shorter "
            "than a snapshot takes: raise `retention.ms` or `retention.bytes` there, then recover again"
        )


@dataclass(frozen=True)
class Recovered:
    """What was lost of one table: {partition: (first lost offset, first kept)}, or all of an earlier topic.

    `set_aside` is where the log of the earlier topic lies now. `before_kafka`: changes that never came to Kafka.
    """

    gaps: dict[int, tuple[int, int]]
    set_aside: Path | None
    before_kafka: bool = False

    def describe(self) -> str:
        """One line for a person."""
        lost = [f"[{first}, {kept}) of partition {partition}" for partition, (first, kept) in self.gaps.items()]
        if self.set_aside:
            lost.append(f"an earlier topic, whose log is now {self.set_aside}")
        if self.before_kafka:
            lost.append("changes before they came to Kafka")
        return f"lost {', '.join(lost)}; all rows were read again" if lost else "was recovered by another process"


def recover(
    settings: Settings,
    tables: Iterable[str],
    *,
    take_snapshots: TakeSnapshots,
    limit: timedelta = timedelta(minutes=30),
) -> dict[str, Recovered]:
    """Have the logs of the tables hold again what PostgreSQL holds; {table: what it had lost}.

    Tables that lost nothing are left alone and out of the answer. Of the others the living rows are read again, the log
    gets its gap marks and its new offsets in one commit (or is set aside whole, when its topic is another), and is
    drained to the end of the snapshot. Ended at any point, it is called again: what was done is not done twice, but a
    snapshot may be. `OffsetsOutOfRange` when a log is ahead of its topic, `RowsLostAgain`,
    `NotCaptured`; errors as `drain_up_to`.
    """
    names = list(tables)
    require_captured(names)
    recovered: dict[str, Recovered] = {}
    if lost := [table for table in names if _has_lost(settings, table)]:
        begins = _read_again(settings, lost, take_snapshots)
        whole = last_stable_offsets(settings, lost)
        recovered = {table: _go_on(settings, table, begins[table], whole[table]) for table in lost}
        drain_up_to(settings, lost, whole, limit=limit)
    if holes := open_holes(settings, names):
        mend(settings, holes, take_snapshots=take_snapshots, limit=limit)
        recovered |= {table: replace(recovered.get(table, Recovered({}, None)), before_kafka=True) for table in holes}
    return recovered


def recover_stream(settings: Settings, tables: Sequence[str]) -> dict[str, Recovered]:
    """`recover` of the tables, or of all when none is named, by Debezium's incremental snapshots.

    A connector that can never go on begins anew first, and `PositionLost` when tables are named: it concerns them all.
    Errors of `begin_anew`, of `recover` and of `take_snapshots`.
    """
    require_captured(tables)
    if reason := lost_position(settings):
        if tables:
            raise PositionLost(reason)
        begin_anew(settings)
    # It may have been left stopped, with neither offsets nor slot: what is lost is seen when it starts.
    go_on(settings)
    return recover(
        settings,
        tables or list(TABLES_BY_NAME),
        take_snapshots=lambda names: take_snapshots(settings, names, again=True, limit=SNAPSHOT_LIMIT),
    )


def told(tables: Iterable[str], recovered: Mapping[str, Recovered]) -> str:
    """What was lost and made up for, in lines for a person; of all tables when none was named."""
    lines = dict.fromkeys(tables, "has lost nothing")
    lines |= {table: each.describe() for table, each in recovered.items()}
    return "\n".join(f"{table}: {line}" for table, line in lines.items()) or "no table has lost anything"


def _read_again(settings: Settings, tables: list[str], take_snapshots: TakeSnapshots) -> Offsets:
    """Have the tables read again whole; the offsets at which their topics begin with all of that in them."""
    begins: Offsets = {}
    for _ in range(ATTEMPTS):
        missing = [table for table in tables if table not in begins]
        # In this order: what is requested after the time is written behind the ends.
        ends, asked_at = last_stable_offsets(settings, missing), postgres_clock(settings)
        # One that was under way may have written rows that are deleted by now.
        taken = {snapshot.table for snapshot in take_snapshots(missing) if snapshot.requested_at >= asked_at}
        now = beginning_offsets(settings, missing)
        begins |= {
            table: offsets
            for table, offsets in now.items()
            if table in taken and all(offsets[place] <= end for place, end in ends[table].items())
        }
        if len(begins) == len(tables):
            return begins
    raise RowsLostAgain(table for table in tables if table not in begins)


def _has_lost(settings: Settings, table: str) -> bool:
    log = ChangeLog.existing(settings, table)
    if log is not None and log.topic_id != topic_ids(settings, [table])[table]:
        return True
    begins, ends = beginning_offsets(settings, [table])[table], last_stable_offsets(settings, [table])[table]
    stored = next_offsets(settings, table)
    for partition, offset in stored.items():
        if offset > ends[partition]:
            begin, end = begins[partition], ends[partition]
            raise OffsetsOutOfRange(SINK, table, partition, stored=offset, begin=begin, end=end)
    return bool(_gaps(stored, begins))


def _gaps(stored: dict[int, int], begins: dict[int, int]) -> dict[int, tuple[int, int]]:
    return {
        partition: (offset, begins[partition]) for partition, offset in stored.items() if offset < begins[partition]
    }


@retry_lost_race
def _go_on(settings: Settings, table: str, begins: dict[int, int], whole_from: dict[int, int]) -> Recovered:
    row, topic_id = table_definition(settings, table), topic_ids(settings, [table])[table]
    existing = ChangeLog.existing(settings, table)
    aside = set_aside(settings, table) if existing is not None and existing.topic_id != topic_id else None
    log = ChangeLog.open(settings, table, row=row, topic_id=topic_id)
    gaps = _gaps(log.next_offsets, begins)
    log.record_gaps({partition: begin for partition, (_, begin) in gaps.items()}, whole_from)
    return Recovered(gaps, aside)
