"""From the records of one table to its changes, by the definition that PostgreSQL has of the table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from stripe_platform.cdc.envelope import Layout, Records, UndecodableRecord, UnknownColumns, decode
from stripe_platform.cdc.reader import Event
from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.changes import Change, Refused, changes_of, kinds_of
from stripe_platform.features.columns import NEEDED, require_columns
from stripe_platform.oltp.catalog import Column
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.schema import row_schema

Columns = tuple[Column, ...]


class ColumnsDiffer(StripePlatformError):
    """A column has values of another kind than those that the documents hold."""

    def __init__(self, table: str, differing: Mapping[str, tuple[str, str]]) -> None:
        told = "; ".join(f"{name} was {was} and is {now}" for name, (was, now) in sorted(differing.items()))
        super().__init__(
            f"the documents of {table} stop, for columns have values of another kind: {told}; its changes wait in the "
            f"topic: give them their types back, or build the documents anew: `stripe-platform rebuild {table}`"
        )


@dataclass(frozen=True)
class Decoded:
    """The changes of some records in their order, and the records that are none."""

    changes: list[Change] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class TableDecoder:
    """Decodes records of one table and follows its definition.

    `columns` are those that PostgreSQL's catalog has now, and `ask` reads it anew. `kinds` is {column: kind of its
    values} of every column that the documents hold or ever held: a column that came is added, one that was dropped is
    absent from then on, unless it is needed (`ColumnsMissing`), and none changes its kind (`ColumnsDiffer`).
    """

    def __init__(
        self,
        table: str,
        columns: Columns,
        *,
        kinds: Mapping[str, str],
        placeholder: str,
        ask: Callable[[], Columns],
    ) -> None:
        self.table, self.kinds = table, dict(kinds)
        self._placeholder, self._ask = placeholder, ask
        self._lacking: list[str] = []
        self._follow(columns)

    def _follow(self, columns: Columns) -> None:
        found = kinds_of(columns)
        require_columns(self.table, found)
        differing = {
            name: (self.kinds[name], kind) for name, kind in found.items() if self.kinds.get(name, kind) != kind
        }
        if differing:
            raise ColumnsDiffer(self.table, differing)
        key = TABLES_BY_NAME[self.table].key
        self._layout = Layout(self.table, key, row_schema(self.table, columns), self._placeholder)
        self._read_as = found
        self.kinds = self.kinds | found

    def decode(self, events: Sequence[Event]) -> Decoded:
        """The changes of the records, tombstones left out.

        `ColumnsDiffer` or `ColumnsMissing` when the table is another one now.
        """
        self._notice_what_is_lacking(events)
        decoded = Decoded()
        has_followed = False
        waiting = [events]
        while waiting:
            part = waiting.pop()
            try:
                table = self._read(part)
            except UndecodableRecord as error:
                # Were it the table that changed, every record of it would be refused.
                if not has_followed:
                    self._follow(self._ask())
                    has_followed = True
                    waiting.append(part)
                    continue
                decoded.refused.append(Refused(error.partition, error.offset, error.reason))
                index = _index_of(part, error)
                waiting += [rest for rest in (part[index + 1 :], part[:index]) if rest]
                continue
            for change in changes_of(self.table, table, self._read_as):
                (decoded.changes if isinstance(change, Change) else decoded.refused).append(change)  # type: ignore[arg-type]
        return decoded

    def _notice_what_is_lacking(self, events: Sequence[Event]) -> None:
        """Ask whether a needed column was dropped when the last record has none: read on, it would be null in all."""
        last = next((event.value for event in reversed(events) if event.value), None)
        if last is None:
            return
        lacking = [name for name in NEEDED.get(self.table, ()) if b'"%b":' % name.encode() not in last]
        if lacking and lacking != self._lacking:
            self._follow(self._ask())
        self._lacking = lacking

    def _read(self, events: Sequence[Event]) -> pa.Table:
        records = Records(
            topic_for(self.table),
            [event.partition for event in events],
            [event.offset for event in events],
            [event.value for event in events],
        )
        try:
            return decode(records, self._layout)
        except UnknownColumns:
            self._follow(self._ask())
        try:
            return decode(records, self._layout)
        except UnknownColumns:
            # Dropped since, or personal since: not for the documents in either case.
            return decode(records, self._layout, unknown_columns_count=False)


def _index_of(events: Sequence[Event], error: UndecodableRecord) -> int:
    place = (error.partition, error.offset)
    return next(index for index, event in enumerate(events) if (event.partition, event.offset) == place)
