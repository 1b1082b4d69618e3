"""What the connector tells of its incremental snapshots: Debezium's notifications, from their topic."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stripe_platform.cdc.broker import connection, named_errors
from stripe_platform.cdc.topics import NOTIFICATION_TOPIC
from stripe_platform.oltp.tables import SCHEMA
from stripe_platform.settings import Settings

# Debezium's words, of `IncrementalSnapshotNotificationService`.
AGGREGATE = "Incremental Snapshot"
IN_PROGRESS = "IN_PROGRESS"
TABLE_ENDED = "TABLE_SCAN_COMPLETED"
STOPPED = frozenset({"ABORTED", "COMPLETED"})
EMPTY = "EMPTY"
TAKEN = frozenset({"SUCCEEDED", EMPTY})


@dataclass(frozen=True)
class Notice:
    """One notification.

    `kind` is IN_PROGRESS when a chunk has been read, TABLE_SCAN_COMPLETED when a table came to its end, well or
    badly, as `status` says; of other kinds `table` is None. `chunk` names a chunk within its table.
    """

    signal_id: str
    kind: str
    table: str | None = None
    status: str | None = None
    rows: int = 0
    chunk: str | None = None


def decode(value: bytes | None) -> Notice | None:
    """The notice in a record's value; None when it is not one of an incremental snapshot."""
    told = json.loads(value) if value else None
    if told is None or told["aggregate_type"] != AGGREGATE:
        return None
    data = told["additional_data"] or {}
    table = data.get("scanned_collection") or data.get("current_collection_in_progress")
    status = data.get("status")
    return Notice(
        signal_id=told["id"],
        kind=told["type"],
        table=table.removeprefix(f"{SCHEMA}.") if table else None,
        status=status,
        # Of an empty table the connector tells the count of what it read before.
        rows=0 if status == EMPTY else int(data.get("total_rows_scanned", 0)),
        chunk=data.get("last_processed_key"),
    )


class Notices:
    """Reads the notices from the oldest one kept; they are visible once their transaction has ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = Consumer(
            connection(settings)
            | {
                # Required by the client, never used: the place is assigned and nothing is committed.
                "group.id": "stripe-platform-snapshot",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign([TopicPartition(NOTIFICATION_TOPIC, 0, 0)])

    def __enter__(self) -> "Notices":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def new(self, wait: float) -> Iterator[Notice]:
        """What has come since the last call, up to the topic's end; waits up to `wait` seconds for the first."""
        record = self._poll(wait)
        while record is not None and not record.error():
            if notice := decode(record.value()):
                yield notice
            record = self._poll(0.2)

    def _poll(self, wait: float) -> Message | None:
        with named_errors(self._settings, NOTIFICATION_TOPIC):
            record = self._consumer.poll(wait)
            error = record.error() if record else None
            if error and error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                raise KafkaException(error)
        return record
