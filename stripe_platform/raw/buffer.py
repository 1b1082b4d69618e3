"""What has been read of one table and is not yet in its log."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import pyarrow as pa

from stripe_platform.cdc.envelope import Layout, Records, UnknownColumns, decode
from stripe_platform.cdc.topics import topic_for
from stripe_platform.raw.change_log import ChangeLog, LostRace
from stripe_platform.raw.schema import SchemaChanged, UnknownToCatalog, versioned

# Decoded in slices: a larger one is no faster and holds more text and parse tree in memory.
DECODE_RECORDS = 4_000
DECODE_BYTES = 3 * 1024 * 1024

# Where a test may stop the process; production passes `nowhere`.
Point = Literal["polled", "decoded", "committing", "committed", "published"]


def nowhere(point: Point) -> None:
    """Do nothing at any point."""


class TableBuffer:
    """Records of one table on their way from topic to log; full slices become typed columns early.

    `row` is the table's definition by PostgreSQL's catalog. `definition` asks for it anew, later than the last record
    was read: when a record has a column that the log has not, and before a commit.
    """

    def __init__(
        self,
        log: ChangeLog,
        layout: Layout,
        *,
        row: pa.Schema,
        bounds: Mapping[int, int],
        definition: Callable[[], pa.Schema],
        at: Callable[[Point], None],
    ) -> None:
        self.table = layout.table
        self.next_offsets = log.next_offsets
        self._log, self._layout, self._definition, self._at = log, layout, definition, at
        self._row = row
        self._bounds = bounds
        self._at_end: set[int] = set()
        self._since = 0.0
        self._forget_changes()
        self._forget_records()

    def _forget_changes(self) -> None:
        self._decoded: list[pa.Table] = []
        self._decoded_bytes = 0

    def _forget_records(self) -> None:
        self._partitions: list[int] = []
        self._offsets: list[int] = []
        self._values: list[bytes | None] = []
        self._undecoded_bytes = 0

    @property
    def size(self) -> int:
        """Bytes that the changes and records held take."""
        return self._decoded_bytes + self._undecoded_bytes

    @property
    def rows(self) -> int:
        """Changes held, and records not decoded yet."""
        return sum(len(changes) for changes in self._decoded) + len(self._values)

    @property
    def age(self) -> float:
        """Seconds since the oldest record held was read; 0 when none is held."""
        return time.monotonic() - self._since if self.rows else 0.0

    @property
    def is_caught_up(self) -> bool:
        """Every partition has been read to its end, and at least to its bound."""
        return self._at_end == self.next_offsets.keys() and all(
            self.next_offsets[partition] >= bound for partition, bound in self._bounds.items()
        )

    def take(self, partition: int, offset: int, value: bytes | None) -> None:
        """Hold one record; `UndecodableRecord` when its slice is full and cannot be decoded."""
        if not self._values and not self._decoded:
            self._since = time.monotonic()
        self._partitions.append(partition)
        self._offsets.append(offset)
        self._values.append(value)
        self.next_offsets[partition] = offset + 1
        self._at_end.discard(partition)
        self._undecoded_bytes += len(value) if value else 0
        if len(self._values) >= DECODE_RECORDS or self._undecoded_bytes >= DECODE_BYTES:
            self._decode()

    def reach_end(self, partition: int, offset: int) -> None:
        """The partition holds nothing below this offset that was not taken: what lies between are markers."""
        self.next_offsets[partition] = offset
        self._at_end.add(partition)

    def flush(self) -> int:
        """Commit what is held with the offsets after it, and return the number of rows written.

        Errors leave the log as it was: `UndecodableRecord`, `SchemaChanged`, `UnknownToCatalog`, `LostRace`.
        """
        self._decode()
        if self.next_offsets == self._log.next_offsets:
            return 0
        if self._decoded:
            # Whatever these changes were written under is in the catalog by now.
            with self._judged_by_newest_log():
                self._log.refuse(self._definition())
        else:
            self._decoded = [versioned(decode(self._records(), self._layout), self._row)]
        # A slice read before a column was added lacks it.
        changes = pa.concat_tables(self._decoded, promote_options="default")
        self._at("committing")
        self._log.append(changes, self.next_offsets)
        self._at("committed")
        self._forget_changes()
        return len(changes)

    def _records(self) -> Records:
        return Records(topic_for(self.table), self._partitions, self._offsets, self._values)

    def _decode(self) -> None:
        if not self._values:
            return
        try:
            changes = decode(self._records(), self._layout)
        except UnknownColumns:
            with self._judged_by_newest_log():
                self._follow_definition()
                changes = self._decode_known()
        self._decoded.append(versioned(changes, self._row))
        self._decoded_bytes += changes.nbytes
        self._forget_records()
        self._at("decoded")

    def _decode_known(self) -> pa.Table:
        try:
            return decode(self._records(), self._layout)
        except UnknownColumns as unknown:
            raise UnknownToCatalog(self.table, unknown.columns) from unknown

    @contextmanager
    def _judged_by_newest_log(self) -> Iterator[None]:
        """`LostRace` in place of an error that only this older version of the log may give reason for."""
        try:
            yield
        except (SchemaChanged, UnknownToCatalog):
            if self._log.has_moved:
                raise LostRace(self.table) from None
            raise

    def _follow_definition(self) -> None:
        row = self._definition()
        self._log.follow(row)
        self._layout = replace(self._layout, columns=self._log.readable(row))
        self._row = row
