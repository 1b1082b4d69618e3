"""Move what the topics hold into MongoDB: bounded in time and memory, harmless to repeat."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from pymongo.client_session import ClientSession

from stripe_platform.cdc.offsets import known_topic_ids, last_stable_offsets
from stripe_platform.cdc.reader import Sink, TopicReader
from stripe_platform.cdc.report import Offsets, TableDrained, TablesStopped, drain_until
from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.features import dead_letters
from stripe_platform.features.collecting import seldom_collecting
from stripe_platform.features.decoder import Columns, TableDecoder
from stripe_platform.features.following import BatchDone, Follow, Silence
from stripe_platform.features.hold import Held
from stripe_platform.features.intake import Batch, Intake, Point, Source, nowhere, read_now
from stripe_platform.features.offsets import LostRace, Stored, TopicRecreated, begin, stored_offsets
from stripe_platform.features.projection import Projected, Store, Unprojectable
from stripe_platform.features.report import DocumentsReport
from stripe_platform.features.transaction import named_failures
from stripe_platform.features.writer import Writer
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.definition import table_columns
from stripe_platform.settings import Settings

SINK = Sink(
    group="stripe-platform-mongodb",
    holder="MongoDB's documents of {table}",
    after_gap="build the documents anew: `stripe-platform rebuild {table}`",
    after_loss="build the documents anew: `stripe-platform rebuild {table}`",
)
RUN_LIMIT = timedelta(seconds=45)
# Batches are some megabytes, and many a second.
SPACE_CHECKED_EVERY_S = 1.0


def drain(
    settings: Settings,
    tables: Iterable[str] | None = None,
    *,
    store: Store,
    bounds: Offsets | None = None,
    limit: timedelta = RUN_LIMIT,
    follow: Follow | None = None,
    at: Callable[[Point], None] = nowhere,
) -> DocumentsReport:
    """Apply the changes of the tables (default: all) to the store's documents.

    Goes at least up to `bounds` ({table: {partition: next offset}}; default: the last stable offsets now)
    and on while there is more, but no longer than about `limit`; then lag is left and the next drain goes on. With
    `follow` it does not end at the end of the topics: what comes is applied as it comes.
    Each batch is one transaction with the offsets after it, so that a drain that is killed, or runs twice or beside
    another, neither loses a change nor applies one twice. A record that cannot become a document is in the dead
    letters of the same transaction, and the others go on.

    A table that cannot go on (`ColumnsDiffer`, `ColumnsMissing`, `TopicMissing`, `TopicRecreated`, `OffsetsOutOfRange`)
    stops where it is while the others go on; at the end `TablesStopped` says which and why. While collections are built
    anew the drain gives way: it ends, and its report says so. `StoreFailed` and `NotEnoughDisk` end all; the next drain
    goes on from what was committed.
    """
    names = [table.name for table in CAPTURED_TABLES] if tables is None else list(tables)
    work = _Drain(settings, store, names, bounds=bounds, limit=limit, follow=follow, at=at)
    while not work.is_over:
        try:
            work.go_on()
        except LostRace:
            # Of two drains that meet, one gives way for a moment, lest they meet at every batch.
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311
        except Held as held:
            work.give_way(held)
    report = work.report()
    if work.errors:
        raise TablesStopped(report, work.errors)
    return report


def drain_up_to(
    settings: Settings,
    tables: Iterable[str],
    bounds: Offsets,
    *,
    store: Store,
    limit: timedelta = timedelta(minutes=30),
) -> DocumentsReport:
    """Drain again and again until the documents of the tables come up to the bounds.

    `BoundsNotReached` after `limit`, or when a whole drain found nothing more to take; `Held` while collections are
    built anew.
    """
    wanted = {table: bounds[table] for table in tables}

    def once() -> DocumentsReport:
        report = drain(settings, wanted, store=store, bounds=wanted)
        if report.held:
            raise report.held
        return report

    return drain_until("MongoDB", wanted, once, limit)


class _Drain:
    """The state of one drain over its restarts: after a lost race it begins again from the stored offsets."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        tables: list[str],
        *,
        bounds: Offsets | None,
        limit: timedelta,
        follow: Follow | None,
        at: Callable[[Point], None],
    ) -> None:
        self._settings, self._store, self._tables, self._bounds, self._at = settings, store, tables, bounds, at
        self._follow = follow
        self._started = time.monotonic()
        self._space_checked = -SPACE_CHECKED_EVERY_S
        self._limit = limit.total_seconds()
        self._is_done = False
        self._silence = Silence()
        self._rows: Counter[str] = Counter()
        self._batches: Counter[str] = Counter()
        self._begin: dict[str, Mapping[int, int]] = {}
        self._end: dict[str, Mapping[int, int]] = {}
        self._done: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._held: Held | None = None
        self.errors: dict[str, StripePlatformError] = {}

    @property
    def is_over(self) -> bool:
        is_told_to_end = self._follow is not None and self._follow.until()
        return self._is_done or is_told_to_end or self._seconds > self._limit

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def go_on(self) -> None:
        """Read from the stored offsets to the end or until time is up; `LostRace` when another was faster.

        What has to be read first goes to its bounds alone: it is called again for the others.
        """
        with named_failures(self._settings):
            stored = begin(self._store.documents)
        writer = Writer(self._settings, self._store, stored.version)
        everything = self._open(stored)
        sources = read_now(everything, self._store.projector.read_first)
        is_all = len(sources) == len(everything)
        if not sources:
            self._is_done = True
            return
        starts = {source.table: source.next_offsets for source in sources.values()}
        # While MongoDB works on a batch, the next one is read and decoded.
        with (
            seldom_collecting(),
            TopicReader(self._settings, SINK, starts) as topics,
            ThreadPoolExecutor(1, "intake") as ahead,
        ):
            self._silence.begin()
            intake = Intake(topics, sources, self._at)
            upcoming = ahead.submit(intake.next_batch)
            is_end = False
            while not self.is_over and not is_end:
                batch = upcoming.result()
                is_end = self._is_end(batch) if is_all else batch.is_at_bounds
                if not is_end:
                    upcoming = ahead.submit(intake.next_batch)
                self.errors |= batch.errors
                self._apply(writer, batch)
                self._is_done = is_end and is_all
            self._at("publishing")
            topics.publish({table: self._end[table] for table in starts})
            self._at("published")

    def _is_end(self, batch: Batch) -> bool:
        if batch.changes:
            self._silence.begin()
        return batch.is_last and (self._follow is None or self._silence.has_lasted(self._follow.quiet))

    def give_way(self, held: Held) -> None:
        """Leave the rest to the next drain."""
        there, _ = known_topic_ids(self._settings, self._tables)
        with named_failures(self._settings):
            stored = stored_offsets(self._store.documents).next_offsets(there)
        self._held, self._is_done = held, True
        self._begin = stored | self._begin
        self._end |= {table: offsets for table, offsets in stored.items() if table not in self._end}

    def _apply(self, writer: Writer, batch: Batch) -> None:
        if not batch.moved:
            return
        began = time.monotonic()
        if began >= self._space_checked + SPACE_CHECKED_EVERY_S:
            # Not in the intake: a full disk ends the drain, it does not stop one table after the other.
            check_free_space(self._settings)
            self._space_checked = began
        while True:
            try:
                done = self._write(writer, batch)
                break
            except Unprojectable as refused:
                batch = batch.without(refused.refused)
        self._at("committed")
        self._count(batch, done)
        if self._follow is not None:
            changes = dict(Counter(change.table for change in batch.changes))
            stale, written = (done.stale, done.written) if done is not None else (0, {})
            self._follow.told(BatchDone(changes, stale, len(batch.letters), time.monotonic() - began, written))

    def _write(self, writer: Writer, batch: Batch) -> Projected | None:
        def before(session: ClientSession) -> None:
            self._at("in_transaction")
            dead_letters.keep(session, self._store.documents, batch.letters)

        return writer.write(batch.changes, batch.moved, before=before, after=lambda _: self._at("committing"))

    def _count(self, batch: Batch, done: Projected | None) -> None:
        self._rows.update(change.table for change in batch.changes)
        self._batches.update(batch.moved.keys())
        self._end |= {table: taken.next for table, taken in batch.moved.items()}
        self._done["dead_letters"] += len(batch.letters)
        if done is not None:
            self._done.update(applied=done.applied, stale=done.stale, documents=done.documents)
            self._written.update(done.written)

    def report(self) -> DocumentsReport:
        ends = last_stable_offsets(self._settings, self._end)
        drained = {
            table: TableDrained(
                rows=self._rows[table],
                batches=self._batches[table],
                begin=dict(self._begin[table]),
                end=dict(end),
                lag=sum(max(0, ends[table][place] - offset) for place, offset in end.items()),
            )
            for table, end in self._end.items()
        }
        return DocumentsReport(
            drained,
            self._seconds,
            applied=self._done["applied"],
            stale=self._done["stale"],
            documents=self._done["documents"],
            dead_letters=self._done["dead_letters"],
            written=self._written,
            held=self._held,
        )

    def _open(self, stored: Stored) -> dict[str, Source]:
        """What is read of each table that can go on, by topic; of the others the error is kept."""
        going = [table for table in self._tables if table not in self.errors]
        ids, missing = known_topic_ids(self._settings, going)
        self.errors |= missing
        columns = table_columns(self._settings)
        decoders: dict[str, TableDecoder] = {}
        for table in ids:
            try:
                decoders[table] = self._decoder(table, stored, ids[table], columns[table])
            except StripePlatformError as error:
                self.errors[table] = error
        # Asked once: after a lost race the way is still as far as it was.
        if self._bounds is None:
            self._bounds = last_stable_offsets(self._settings, decoders)
        starts = stored.next_offsets(decoders)
        self._begin = starts | self._begin
        self._end |= starts
        return {
            topic_for(table): Source(decoder, ids[table], starts[table], self._bounds.get(table, {}))
            for table, decoder in decoders.items()
        }

    def _decoder(self, table: str, stored: Stored, topic_id: str, columns: Columns) -> TableDecoder:
        taken = stored.tables.get(table)
        if taken is not None and taken.topic_id != topic_id:
            raise TopicRecreated(table)
        return TableDecoder(
            table,
            columns,
            kinds=taken.columns if taken else {},
            placeholder=self._settings.secret("toast_placeholder"),
            ask=lambda: table_columns(self._settings)[table],
        )
