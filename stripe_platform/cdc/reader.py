"""Reading the topics of captured tables from given offsets, without a consumer group's balancing."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stripe_platform.cdc.broker import connection, named_errors
from stripe_platform.cdc.offsets import beginning_offsets, last_stable_offsets
from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings

MESSAGES_AT_ONCE = 1_000
# Long enough to fill a batch, short enough for a change to be seen at once.
WAIT_SECONDS = 0.1

# What librdkafka may hold ready, whatever the backlog: the drain's memory is bounded by it.
PREFETCH = {
    "queued.max.messages.kbytes": 8 * 1024,
    "queued.min.messages": 20_000,
    # Compressed: what it unpacks to may be a hundred times as much.
    "max.partition.fetch.bytes": 128 * 1024,
    "fetch.max.bytes": 2 * 1024 * 1024,
    "fetch.wait.max.ms": 100,
    # Else a full queue rests for a second before it is filled again.
    "fetch.queue.backoff.ms": 5,
}

log = logging.getLogger(__name__)


# Names, not all of them different, with bytes.
Headers = list[tuple[str, bytes | None]]


class Event(NamedTuple):
    """A record; or, with `error`, news of a partition or (`topic` is empty) of the client itself."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    error: KafkaError | None
    key: bytes | None = None
    headers: Headers | None = None

    @property
    def is_end_of_partition(self) -> bool:
        """Nothing lies below `offset` that was not delivered."""
        return self.error is not None and self.error.code() == KafkaError._PARTITION_EOF


@dataclass(frozen=True)
class Sink:
    """Who reads the topics into a store of its own.

    `group` is the consumer group that shows people its offsets. The others are words of errors, with `{table}` for
    the table's name: what holds its changes, and what to do when the topic deleted some unread or lost all of them.
    """

    group: str
    holder: str
    after_gap: str
    after_loss: str


class OffsetsOutOfRange(StripePlatformError):
    """The topic no longer holds the record at the stored offset, or never did."""

    def __init__(self, sink: Sink, table: str, partition: int, *, stored: int, begin: int, end: int) -> None:
        if stored < begin:
            told = (
                f"the records [{stored}, {begin}) were deleted unread, {begin - stored:,} offsets; "
                f"{sink.after_gap.format(table=table)}"
            )
        else:
            told = (
                "it is ahead of its topic, which lost what it had; delete the topic with Kafka's tools, make it "
                f"anew with `stripe-platform up`, and {sink.after_loss.format(table=table)}"
            )
        super().__init__(
            f"{sink.holder.format(table=table)} would go on at offset {stored} of {topic_for(table)} partition "
            f"{partition}, which holds [{begin}, {end}): {told}"
        )


class TopicReader:
    """A consumer of whole tables from given offsets on; as a context manager it is closed at the end."""

    def __init__(self, settings: Settings, sink: Sink, starts: Mapping[str, Mapping[int, int]]) -> None:
        self._settings, self._sink = settings, sink
        self._tables = {topic_for(table): table for table in starts}
        self._consumer = Consumer(
            connection(settings)
            | PREFETCH
            | {
                "group.id": sink.group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                # Tells the offset past the last transaction's markers: only so does lag come to 0.
                "enable.partition.eof": True,
            }
        )
        self._consumer.assign(_places(starts))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def read(self) -> list[Event]:
        """The next records and events, after `WAIT_SECONDS` at most."""
        with named_errors(self._settings, "a topic of a captured table"):
            messages = self._consumer.consume(MESSAGES_AT_ONCE, WAIT_SECONDS)
        return [
            Event(
                message.topic() or "",
                message.partition() or 0,
                message.offset() or 0,
                message.value(),
                message.error(),
                message.key(),
                # What is set may be of more types than what is read.
                cast("Headers | None", message.headers()),
            )
            for message in messages
        ]

    def refuse(self, event: Event, next_offsets: Mapping[int, int]) -> None:
        """Raise for an event that ends a table's reading: `OffsetsOutOfRange`, or as `refuse_failure`."""
        if event.error is not None and event.error.code() == KafkaError._AUTO_OFFSET_RESET:
            table = self._tables[event.topic]
            begin, end = (
                offsets(self._settings, [table])[table][event.partition]
                for offsets in (beginning_offsets, last_stable_offsets)
            )
            stored = next_offsets[event.partition]
            raise OffsetsOutOfRange(self._sink, table, event.partition, stored=stored, begin=begin, end=end)
        self.refuse_failure(event)

    def refuse_failure(self, event: Event) -> None:
        """Raise for an event by which the client says that it cannot go on; others pass by themselves."""
        if event.error is not None and event.error.fatal():
            with named_errors(self._settings, "a topic of a captured table"):
                raise KafkaException(event.error)

    def stop(self, table: str) -> None:
        """Fetch nothing more of this table; what was fetched already may still come."""
        partitions = range(TABLES_BY_NAME[table].topic_partitions)
        self._consumer.pause(_places({table: dict.fromkeys(partitions, 0)}))

    def publish(self, next_offsets: Mapping[str, Mapping[int, int]]) -> None:
        """Commit the offsets to the consumer group, for people and tools to look at; no drain reads them."""
        try:
            self._consumer.commit(offsets=_places(next_offsets), asynchronous=False)
        except KafkaException as failure:
            log.warning("offsets of group %s were not published: %s", self._sink.group, failure.args[0].name())


def _places(offsets: Mapping[str, Mapping[int, int]]) -> list[TopicPartition]:
    return [
        TopicPartition(topic_for(table), partition, offset)
        for table, partitions in offsets.items()
        for partition, offset in partitions.items()
    ]
