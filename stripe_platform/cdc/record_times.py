"""When records of the topics were written."""

import time
from collections.abc import Mapping
from datetime import timedelta

from confluent_kafka import Consumer, TopicPartition

from stripe_platform.cdc.broker import connection, named_errors
from stripe_platform.cdc.topics import topic_for
from stripe_platform.settings import Settings

# What has not come by then counts as new.
READ_LIMIT = timedelta(seconds=3)


def first_record_times(
    settings: Settings, begins: Mapping[tuple[str, int], int], *, in_open_transactions: bool = False
) -> dict[tuple[str, int], float]:
    """{(table, partition): Unix time of the first record at or after the offset}, where one came in `READ_LIMIT`.

    Records of transactions that have not ended count only with `in_open_transactions`.
    """
    if not begins:
        return {}
    waiting = {(topic_for(table), partition): (table, partition) for table, partition in begins}
    times: dict[tuple[str, int], float] = {}
    isolation = "read_uncommitted" if in_open_transactions else "read_committed"
    consumer = Consumer(connection(settings) | _ONE_RECORD_EACH | {"isolation.level": isolation})
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
    "group.id": "stripe-platform-record-times",
    "enable.auto.commit": False,
    # A record that was deleted unread is the drain's to refuse; here the oldest one kept tells the age.
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "queued.min.messages": 1,
    "fetch.message.max.bytes": 16 * 1024,
    "fetch.wait.max.ms": 50,
    "fetch.queue.backoff.ms": 5,
}
