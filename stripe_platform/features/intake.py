"""From the topics to batches of changes: everything of a drain that MongoDB takes no part in."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from stripe_platform.cdc import reader
from stripe_platform.cdc.reader import Event, TopicReader
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.changes import Change
from stripe_platform.features.dead_letters import Letter
from stripe_platform.features.decoder import TableDecoder
from stripe_platform.features.offsets import TableOffsets
from stripe_platform.features.projection import without

# A batch is one transaction: with more it is no faster, and whoever loses a race loses more.
MOST_RECORDS = 2_000
MOST_BYTES = 4 * 1024 * 1024
LONGEST_SECONDS = 1.0

# Where a test may stop the process; production passes `nowhere`.
Point = Literal[
    "polled",
    "decoded",
    "in_transaction",
    "committing",
    "committed",
    "publishing",
    "published",
    "reporting",
    "reported",
]


def nowhere(point: Point) -> None:
    """Do nothing at any point."""


@dataclass(frozen=True)
class Batch:
    """What one transaction takes: changes, letters, and the offsets after them of the tables that moved.

    `records` are those that changes were made of. `errors` are of tables that stop before this batch. With
    `is_at_bounds` every bound has been reached, and with `is_last` every topic's end too: nothing more waits.
    """

    changes: list[Change] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    moved: dict[str, TableOffsets] = field(default_factory=dict)
    records: dict[str, list[Event]] = field(default_factory=dict)
    errors: dict[str, StripePlatformError] = field(default_factory=dict)
    is_last: bool = False
    is_at_bounds: bool = False

    def without(self, refused: Sequence[tuple[Change, str]]) -> "Batch":
        """The batch with letters, which say the reasons, in place of these changes."""
        reasons = {(change.table, change.partition, change.offset): reason for change, reason in refused}
        letters = [
            Letter.of(table, self.moved[table].topic_id, event, reasons[table, event.partition, event.offset])
            for table in sorted({table for table, _, _ in reasons})
            for event in self.records[table]
            if (table, event.partition, event.offset) in reasons
        ]
        return replace(self, changes=without(self.changes, refused), letters=[*self.letters, *letters])


class Source:
    """A table on its way: where its reading is, and what was read of it and is in no batch yet."""

    def __init__(
        self, decoder: TableDecoder, topic_id: str, next_offsets: Mapping[int, int], bounds: Mapping[int, int]
    ) -> None:
        self.decoder, self.topic_id = decoder, topic_id
        self.next_offsets = dict(next_offsets)
        self._bounds = bounds
        self._at_end: set[int] = set()
        self._begin_batch()

    def _begin_batch(self) -> None:
        self.events: list[Event] = []
        self._begin = dict(self.next_offsets)

    @property
    def table(self) -> str:
        """The table's name."""
        return self.decoder.table

    @property
    def waiting(self) -> int:
        """Offsets up to the bounds."""
        return sum(max(0, bound - self.next_offsets[partition]) for partition, bound in self._bounds.items())

    @property
    def is_caught_up(self) -> bool:
        """Every partition has been read to its end, and at least to its bound."""
        return self._at_end == self.next_offsets.keys() and all(
            self.next_offsets[partition] >= bound for partition, bound in self._bounds.items()
        )

    def take(self, event: Event) -> None:
        """Hold a record."""
        self.events.append(event)
        self.next_offsets[event.partition] = event.offset + 1
        self._at_end.discard(event.partition)

    def reach_end(self, event: Event) -> None:
        """The partition holds nothing below this offset that was not taken: what lies between are markers."""
        self.next_offsets[event.partition] = event.offset
        self._at_end.add(event.partition)

    def give(self, batch: Batch) -> None:
        """Put what was read into the batch; an error, and the batch is as it was, when the table cannot go on."""
        if self.next_offsets == self._begin:
            return
        decoded = self.decoder.decode(self.events)
        refused = {(record.partition, record.offset): record.reason for record in decoded.refused}
        batch.changes.extend(decoded.changes)
        batch.letters.extend(
            Letter.of(self.table, self.topic_id, event, reason)
            for event in (self.events if refused else ())
            if (reason := refused.get((event.partition, event.offset)))
        )
        batch.moved[self.table] = TableOffsets(self.topic_id, dict(self.next_offsets), dict(self.decoder.kinds))
        batch.records[self.table] = self.events
        self._begin_batch()


def read_now(sources: Mapping[str, Source], read_first: Iterable[Collection[str]]) -> Mapping[str, Source]:
    """The first group of tables that is a backlog, while there is one of others too; without any, all."""
    for group in read_first:
        first = {topic: source for topic, source in sources.items() if source.table in group and source.waiting}
        others = sum(source.waiting for topic, source in sources.items() if topic not in first)
        if min(others, sum(source.waiting for source in first.values())) > MOST_RECORDS:
            return first
    return sources


class Intake:
    """Reads and decodes batch after batch of the given tables."""

    def __init__(self, topics: TopicReader, sources: Mapping[str, Source], at: Callable[[Point], None]) -> None:
        self._topics, self._at = topics, at
        self._sources = dict(sources)

    def next_batch(self) -> Batch:
        """What waits now, if anything does: `MOST_RECORDS` or `LONGEST_SECONDS` of it at most."""
        batch = Batch()
        self._read(batch)
        for topic, source in list(self._sources.items()):
            try:
                source.give(batch)
            except StripePlatformError as error:
                self._stop(topic, error, batch)
        self._at("decoded")
        sources = self._sources.values()
        return replace(
            batch,
            is_last=all(source.is_caught_up for source in sources),
            is_at_bounds=not any(source.waiting for source in sources),
        )

    def _read(self, batch: Batch) -> None:
        began = time.monotonic()
        records = size = 0
        while True:
            events = self._topics.read()
            self._at("polled")
            self._sort(events, batch)
            records += len(events)
            size += sum(len(event.value) for event in events if event.value)
            # Less than was asked for: nothing waits, and what was read must not wait either.
            if len(events) < reader.MESSAGES_AT_ONCE or records + reader.MESSAGES_AT_ONCE > MOST_RECORDS:
                return
            if size >= MOST_BYTES or time.monotonic() - began >= LONGEST_SECONDS:
                return

    def _sort(self, events: Iterable[Event], batch: Batch) -> None:
        for event in events:
            source = self._sources.get(event.topic)
            if source is None:
                self._topics.refuse_failure(event)
            elif event.error is None:
                source.take(event)
            elif event.is_end_of_partition:
                source.reach_end(event)
            else:
                try:
                    self._topics.refuse(event, source.next_offsets)
                except StripePlatformError as error:
                    self._stop(event.topic, error, batch)

    def _stop(self, topic: str, error: StripePlatformError, batch: Batch) -> None:
        table = self._sources.pop(topic).table
        batch.errors[table] = error
        self._topics.stop(table)
