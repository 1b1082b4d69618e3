"""How far the raw change log is behind its topics."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from confluent_kafka import Consumer, TopicPartition

from stripe_platform.cdc.broker import connection, named_errors
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.cdc.topics import topic_for
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.settings import Settings

# Of the oldest records; what has not come by then counts as new.
READ_LIMIT = timedelta(seconds=3)


@dataclass(frozen=True)
class Lag:
    """What a table's log has not taken: `messages` unread, and the age of the oldest of them.

    Markers of transactions count as messages and have no age: `seconds` is 0 when nothing else is unread.
    """

    messages: int
    seconds: float


def raw_lag(settings: Settings) -> dict[str, Lag]:
    """The lag of every captured table: last stable offset less the log's own next offset, over its partitions.

    One round trip when nothing is unread; else the oldest unread record of each partition is read as well.
    """
    ends = last_stable_offsets(settings, [table.name for table in CAPTURED_TABLES])
    unread = {
        (table, partition): (offset, end)
        for table, partitions in ends.items()
        for partition, offset in next_offsets(settings, table).items()
        if (end := partitions[partition]) > offset
    }
    oldest = _oldest_times(settings, {place: begin for place, (begin, _) in unread.items()})
    now = time.time()
    return {
        table: Lag(
            messages=sum(end - begin for (name, _), (begin, end) in unread.items() if name == table),
            seconds=max((now - at for (name, _), at in oldest.items() if name == table), default=0.0),
        )
        for table in ends
    }


def _oldest_times(settings: Settings, begins: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], float]:
    """Unix time of the first record at or after each offset, of those that came within `READ_LIMIT`."""
    if not begins:
        return {}
    waiting = {(topic_for(table), partition): (table, partition) for table, partition in begins}
    times: dict[tuple[str, int], float] = {}
    consumer = Consumer(connection(settings) | _ONE_RECORD_EACH)
    try:
        consumer.assign([TopicPartition(*place, begins[name]) for place, name in waiting.items()])
        deadline = time.monotonic() + READ_LIMIT.total_seconds()
        while waiting and time.monotonic() < deadline:
            with named_errors(settings, "a topic of a captured table"):
                messages = consumer.consume(len(waiting), 0.1)
            for message in messages:
                place = (message.topic() or "", message.partition() or 0)
                name = waiting.pop(place, None)
                if name is not None and message.error() is None:
                    times[name] = message.timestamp()[1] / 1000
                    # One is enough, and more of it would keep the others waiting.
                    consumer.pause([TopicPartition(*place)])
    finally:
        consumer.close()
    return times


_ONE_RECORD_EACH: dict[str, str | int | bool] = {
    # Required by the client, never used: the places are assigned and nothing is committed.
    "group.id": "stripe-platform-raw-lag",
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    # A record that was deleted unread is the drain's to refuse; here the oldest one kept tells the age.
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "queued.min.messages": 1,
    "fetch.message.max.bytes": 16 * 1024,
    "fetch.wait.max.ms": 50,
    "fetch.queue.backoff.ms": 5,
}
