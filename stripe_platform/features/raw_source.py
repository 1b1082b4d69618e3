"""What collections are built anew from: the raw change log, from what counts in it up to where the sink has come."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stripe_platform.cdc.holes import ChangesLost, known_holes
from stripe_platform.cdc.offsets import beginning_offsets, topic_ids
from stripe_platform.cdc.reader import Event
from stripe_platform.cdc.topics import topic_for
from stripe_platform.features.changes import Change, Refused, changes_of, kinds_of
from stripe_platform.features.columns import require_columns
from stripe_platform.features.offsets import Stored, TableOffsets
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import GAP, TRUNCATE, ChangeLog, TopicRecreated, log_folder
from stripe_platform.raw.definition import table_columns
from stripe_platform.raw.drain import drain_up_to
from stripe_platform.raw.mending import not_made_up_for
from stripe_platform.raw.schema import own_columns
from stripe_platform.settings import Settings

# So many offsets are read at once, which bounds memory.
OFFSETS_AT_ONCE = 20_000


@dataclass(frozen=True)
class TableLog:
    """The log of a table up to `end` ({partition: offset}), as changes whose values are of these kinds.

    `placeholder` stands in a record for a large value that did not change.
    """

    log: ChangeLog
    kinds: Mapping[str, str]
    end: Mapping[int, int]
    placeholder: str

    @property
    def table(self) -> str:
        """The table's name."""
        return self.log.table

    @property
    def offsets(self) -> TableOffsets:
        """What the store has taken of the topic when it has taken all of this."""
        return TableOffsets(self.log.topic_id, self.end, self.kinds)

    @property
    def counted_from(self) -> Mapping[int, int]:
        """{partition: offset before which nothing counts}: behind its last gap all rows were read again."""
        return _behind_gaps(self.end, self.log.marks())

    def changes(self) -> Iterator[list[Change | Refused]]:
        """The changes that count, partition after partition in the order of the offsets.

        What was known before the last gap of a partition does not count, nor what came before the last truncate.
        """
        marks = self.log.marks()
        truncated = marks.filter(pc.and_(pc.equal(marks["_op"], TRUNCATE), _are_below(self.end, marks)))
        counted_from = _behind_gaps(self.end, marks)
        for partition, end in self.end.items():
            for start in range(counted_from[partition], end, OFFSETS_AT_ONCE):
                stored = self.log.changes(partition, start, min(start + OFFSETS_AT_ONCE, end))
                stored = _living(stored, truncated)
                if len(stored):
                    yield changes_of(self.table, self._with_all_columns(stored), self.kinds)

    def _with_all_columns(self, stored: pa.Table) -> pa.Table:
        # One that no change has told of yet is not in the log.
        for name in self.kinds.keys() - set(stored.column_names):
            stored = stored.append_column(name, pa.nulls(len(stored), pa.string()))
        return stored

    def event_of(self, partition: int, offset: int) -> Event:
        """The record of a stored change, as the connector would write it now."""
        stored = self.log.changes(partition, offset, offset + 1)
        (change,) = stored.to_pylist()
        row = {name: _as_told(change[name]) for name in own_columns(stored.schema).names}
        row |= dict.fromkeys(change["_unchanged"], self.placeholder)
        is_delete = change["_op"] == "d"
        value = {
            "op": change["_op"],
            "before": row if is_delete else None,
            "after": None if is_delete else row,
            "source": {
                "table": self.table,
                "lsn": change["_lsn"],
                "txId": change["_xid"],
                "ts_us": round(change["_committed_at"].timestamp() * 1_000_000),
                "snapshot": "true" if change["_snapshot"] else "false",
            },
        }
        return Event(topic_for(self.table), partition, offset, json.dumps(value).encode(), None)


def _behind_gaps(partitions: Iterable[int], marks: pa.Table) -> dict[int, int]:
    gaps = marks.filter(pc.equal(marks["_op"], GAP))
    last = {place: pc.max(gaps.filter(pc.equal(gaps["_partition"], place))["_offset"]).as_py() for place in partitions}
    return {place: 0 if offset is None else offset + 1 for place, offset in last.items()}


def _are_below(end: Mapping[int, int], marks: pa.Table) -> pa.ChunkedArray:
    places = zip(marks["_partition"].to_pylist(), marks["_offset"].to_pylist(), strict=True)
    return pa.chunked_array([[offset < end[partition] for partition, offset in places]], pa.bool_())


def _living(stored: pa.Table, truncated: pa.Table) -> pa.Table:
    """Without truncates and what came before them: they empty the partitions that they are not in, too."""
    stored = stored.filter(pc.not_equal(stored["_op"], TRUNCATE))
    if not len(truncated):
        return stored
    # What an incremental snapshot read has no position, only its time.
    is_later = pc.coalesce(
        pc.greater(stored["_lsn"], pc.max(truncated["_lsn"])),
        pc.greater(stored["_committed_at"], pc.max(truncated["_committed_at"])),
    )
    return stored.filter(is_later)


def _as_told(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else value


@dataclass(frozen=True)
class Source:
    """The logs of some tables, and the last hole {table: id} of each for which its log has made up."""

    logs: Mapping[str, TableLog]
    holes: Mapping[str, str]


def raw_source(settings: Settings, stored: Stored, tables: Sequence[str]) -> Source:
    """The logs of the tables up to the sink's offsets, drained that far.

    Where the sink can never go on from its offsets (its topic was created again, or has deleted what comes next), or
    has not come to the end of what was read again behind a gap, up to where the log has come. `ChangesLost` while a log
    has not made up for a hole, `TopicRecreated` when it is of an earlier topic, `ColumnsMissing`; errors as raw's
    `drain_up_to`.
    """
    holes = {table: hole for table, hole in known_holes(settings).items() if table in tables}
    if missing := not_made_up_for(settings, holes):
        raise ChangesLost(missing)
    _drain_raw(settings, stored, tables)
    begins, columns = beginning_offsets(settings, tables), table_columns(settings)
    logs = {}
    for table in tables:
        require_columns(table, kinds_of(columns[table]))
        log = _existing(settings, table)
        end = log.next_offsets if _is_lost(stored, log, begins[table]) else stored.next_offsets([table])[table]
        logs[table] = TableLog(log, kinds_of(columns[table]), end, settings.secret("toast_placeholder"))
    return Source(logs, holes)


def _drain_raw(settings: Settings, stored: Stored, tables: Sequence[str]) -> None:
    ids = topic_ids(settings, tables)
    wanted: dict[str, dict[int, int]] = {}
    for table in tables:
        log = ChangeLog.existing(settings, table)
        if log is not None and log.topic_id != ids[table]:
            raise TopicRecreated(table, log_folder(settings, table))
        taken = stored.tables.get(table)
        bounds = dict.fromkeys(range(TABLES_BY_NAME[table].topic_partitions), 0)
        if taken is not None and taken.topic_id == ids[table]:
            bounds |= dict(taken.next)
        if log is not None:
            bounds = {place: max(offset, log.whole_from.get(place, 0)) for place, offset in bounds.items()}
        if log is None or _is_short(log, bounds):
            wanted[table] = bounds
    if wanted:
        drain_up_to(settings, wanted, wanted)


def _is_short(log: ChangeLog, bounds: Mapping[int, int]) -> bool:
    return any(log.next_offsets[place] < offset for place, offset in bounds.items())


def _existing(settings: Settings, table: str) -> ChangeLog:
    log = ChangeLog.existing(settings, table)
    assert log is not None, table  # noqa: S101 - it has been drained
    return log


def _is_lost(stored: Stored, log: ChangeLog, begins: Mapping[int, int]) -> bool:
    taken = stored.tables.get(log.table)
    if taken is not None and taken.topic_id != log.topic_id:
        return True
    whole = log.whole_from
    offsets = stored.next_offsets([log.table])[log.table]
    return any(offset < max(begins[place], whole.get(place, 0)) for place, offset in offsets.items())


def open_holes(settings: Settings, stored: Stored, tables: Sequence[str]) -> dict[str, str]:
    """{table: id of its last hole} of the tables whose documents have not made up for it."""
    holes = known_holes(settings)
    return {table: holes[table] for table in tables if table in holes and stored.holes.get(table) != holes[table]}
