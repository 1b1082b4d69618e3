"""Move what the topics hold into the raw change log: bounded in time and memory, harmless to repeat."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial

import pyarrow as pa

from stripe_platform.cdc.cut_store import cut_of_run
from stripe_platform.cdc.envelope import Layout
from stripe_platform.cdc.offsets import last_stable_offsets, topic_ids
from stripe_platform.cdc.reader import Event, Sink, TopicReader
from stripe_platform.cdc.report import DrainReport, Offsets, TableDrained, TablesStopped, drain_until
from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.catalog import Column
from stripe_platform.oltp.tables import CAPTURED_TABLES, TABLES_BY_NAME
from stripe_platform.raw.buffer import Point, TableBuffer, nowhere
from stripe_platform.raw.change_log import ChangeLog, LostRace
from stripe_platform.raw.definition import table_columns
from stripe_platform.raw.schema import row_schema
from stripe_platform.settings import Settings

SINK = Sink(
    group="stripe-platform-raw",
    holder="raw/{table}",
    after_gap="read the rows again that live and go on behind the gap: `stripe-platform recover {table}`",
    after_loss="begin a new log: `stripe-platform recover {table}`",
)
RUN_LIMIT = timedelta(seconds=45)
# A commit costs about 40 ms whatever its size; when a topic's end is reached first, what is held is flushed at once.
FLUSH_ROWS = 50_000
FLUSH_SECONDS = 15
# Over all tables: with it the whole process stays below 512 MB.
HELD_BYTES = 24 * 1024 * 1024


def drain(
    settings: Settings,
    tables: Iterable[str] | None = None,
    *,
    bounds: Offsets | None = None,
    limit: timedelta = RUN_LIMIT,
    at: Callable[[Point], None] = nowhere,
) -> DrainReport:
    """Take the changes of the tables (default: all) into their logs.

    Goes at least up to `bounds` ({table: {partition: next offset}}; default: the last stable offsets now)
    and on while there is more, but no longer than about `limit`; then lag is left and the next drain goes on.
    Each batch of a table is one commit with the offsets after it, so that a drain that is killed, or runs
    twice or beside another, neither loses a row nor doubles one.

    A table that cannot go on (`UndecodableRecord`, `SchemaChanged`, `UnknownToCatalog`, `TopicRecreated`,
    `OffsetsOutOfRange`) stops where it is while the others go on; at the end `TablesStopped` says which and why.
    `NotEnoughDisk` ends all before the next batch is written; the next drain goes on from what was committed.
    """
    names = [table.name for table in CAPTURED_TABLES] if tables is None else list(tables)
    work = _Drain(settings, names, bounds, limit, at)
    while not work.is_over:
        try:
            work.go_on()
        except LostRace:
            # Of two drains that meet, one gives way for a moment, lest they meet at every batch.
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311
    report = work.report()
    if work.errors:
        raise TablesStopped(report, work.errors)
    return report


class _Drain:
    """The state of one drain over its restarts: after a lost race it begins again from the stored offsets."""

    def __init__(
        self,
        settings: Settings,
        tables: list[str],
        bounds: Offsets | None,
        limit: timedelta,
        at: Callable[[Point], None],
    ) -> None:
        self._settings, self._tables, self._bounds, self._at = settings, tables, bounds, at
        self._started = time.monotonic()
        self._limit = limit.total_seconds()
        self._is_done = False
        self._rows = dict.fromkeys(tables, 0)
        self._batches = dict.fromkeys(tables, 0)
        self._begin: dict[str, dict[int, int]] = {}
        self._end: dict[str, dict[int, int]] = {}
        self._buffers: dict[str, TableBuffer] = {}
        # Topics that were read to their ends: under load no moment finds all of them there at once.
        self._ended: set[str] = set()
        self._catalog: Mapping[str, tuple[Column, ...]] | None = None
        self.errors: dict[str, StripePlatformError] = {}

    @property
    def is_over(self) -> bool:
        return self._is_done or self._seconds > self._limit

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def go_on(self) -> None:
        """Read from the stored offsets to the end or until time is up; `LostRace` when another was faster."""
        self._buffers, self._ended = self._open(), set()
        starts = {held.table: held.next_offsets for held in self._buffers.values()}
        with TopicReader(self._settings, SINK, starts) as reader:
            while self._buffers and not self.is_over:
                self._read_batch(reader)
                self._flush_what_is_due(reader)
                self._is_done = self._ended >= self._buffers.keys()
            self._flush(reader, list(self._buffers))
            reader.publish({table: self._end[table] for table in starts})
            self._at("published")
        self._is_done = self._is_done or not self._buffers

    def _read_batch(self, reader: TopicReader) -> None:
        events = reader.read()
        self._catalog = None
        self._at("polled")
        for event in events:
            held = self._buffers.get(event.topic)
            if held is None:
                reader.refuse_failure(event)
                continue
            try:
                _take(reader, held, event)
            except StripePlatformError as error:
                self._stop(reader, event.topic, error)

    def _flush_what_is_due(self, reader: TopicReader) -> None:
        everything = sum(held.size for held in self._buffers.values()) >= HELD_BYTES
        # Once each: what comes to it while others are still on their way is flushed with the last.
        ended = {topic for topic, held in self._buffers.items() if held.is_caught_up} - self._ended
        self._ended |= ended
        self._flush(
            reader,
            [
                topic
                for topic, held in self._buffers.items()
                if everything or topic in ended or held.rows >= FLUSH_ROWS or held.age >= FLUSH_SECONDS
            ],
        )

    def _flush(self, reader: TopicReader, topics: list[str]) -> None:
        for topic in topics:
            # Not in the try below: a full disk or no PostgreSQL ends the drain, and not one table after the other.
            check_free_space(self._settings)
            held = self._buffers[topic]
            if held.rows:
                self._looked_up()
            try:
                written = held.flush()
            except StripePlatformError as error:
                self._stop(reader, topic, error)
                continue
            if written or self._end[held.table] != held.next_offsets:
                self._batches[held.table] += 1
            self._rows[held.table] += written
            self._end[held.table] = dict(held.next_offsets)

    def _stop(self, reader: TopicReader, topic: str, error: StripePlatformError) -> None:
        table = self._buffers.pop(topic).table
        self.errors[table] = error
        reader.stop(table)

    def report(self) -> DrainReport:
        ends = last_stable_offsets(self._settings, self._end)
        drained = {
            table: TableDrained(
                rows=self._rows[table],
                batches=self._batches[table],
                begin=self._begin[table],
                end=self._end[table],
                lag=sum(max(0, ends[table][place] - offset) for place, offset in self._end[table].items()),
            )
            for table in self._end
        }
        return DrainReport(drained, self._seconds)

    def _open(self) -> dict[str, TableBuffer]:
        """What is held of each table that can go on, by topic; of the others the error is kept."""
        going = [table for table in self._tables if table not in self.errors]
        ids = topic_ids(self._settings, going)
        # Opened before the catalog is looked at: `ChangeLog.go_on` says why.
        opened = {table: ChangeLog.existing(self._settings, table) for table in going}
        self._catalog = None
        self._looked_up()
        logs: dict[str, tuple[ChangeLog, pa.Schema]] = {}
        for table in going:
            try:
                logs[table] = self._going_on(table, opened[table], ids[table])
            except StripePlatformError as error:
                self.errors[table] = error
        # Asked once: after a lost race the way is still as far as it was.
        if self._bounds is None:
            self._bounds = last_stable_offsets(self._settings, logs)
        return {topic_for(table): self._buffer(table, log, row) for table, (log, row) in logs.items()}

    def _going_on(self, table: str, log: ChangeLog | None, topic_id: str) -> tuple[ChangeLog, pa.Schema]:
        row = self._definition(table)
        if log is None:
            return ChangeLog.open(self._settings, table, row=row, topic_id=topic_id), row
        log.go_on(row, topic_id)
        return log, row

    def _definition(self, table: str) -> pa.Schema:
        return row_schema(table, self._looked_up()[table])

    def _looked_up(self) -> Mapping[str, tuple[Column, ...]]:
        """The catalog as it was after the last records were read; one look serves all tables."""
        if self._catalog is None:
            self._catalog = table_columns(self._settings)
        return self._catalog

    def _buffer(self, table: str, log: ChangeLog, row: pa.Schema) -> TableBuffer:
        self._begin.setdefault(table, log.next_offsets)
        self._end[table] = log.next_offsets
        placeholder = self._settings.secret("toast_placeholder")
        return TableBuffer(
            log,
            Layout(table, TABLES_BY_NAME[table].key, log.readable(row), placeholder),
            row=row,
            bounds=(self._bounds or {}).get(table, {}),
            definition=partial(self._definition, table),
            at=self._at,
        )


def _take(reader: TopicReader, held: TableBuffer, event: Event) -> None:
    if event.error is None:
        held.take(event.partition, event.offset, event.value)
    elif event.is_end_of_partition:
        held.reach_end(event.partition, event.offset)
    else:
        reader.refuse(event, held.next_offsets)


def drain_up_to(
    settings: Settings,
    tables: Iterable[str],
    bounds: Offsets,
    *,
    limit: timedelta = timedelta(minutes=30),
    run_limit: timedelta = RUN_LIMIT,
) -> DrainReport:
    """Drain again and again, `run_limit` each, until the logs of the tables come up to the bounds.

    `BoundsNotReached` after `limit`, or when a whole drain found nothing more to take.
    """
    wanted = {table: bounds[table] for table in tables}
    return drain_until(
        "the raw change log", wanted, lambda: drain(settings, wanted, bounds=wanted, limit=run_limit), limit
    )


def bounds_for_run(settings: Settings, run_id: str) -> Offsets | None:
    """The offsets of the cut that the Dagster run made; None when it made none."""
    cut = cut_of_run(settings, run_id)
    return None if cut is None else cut.offsets
