"""What the connector tells of its starts and its incremental snapshots: Debezium's notifications, from their topic."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stripe_platform.cdc.broker import REQUEST_LIMIT, BrokerUnavailable, connection, named_errors
from stripe_platform.cdc.offsets import notice_offsets
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
# Each start of the task is told once, before its first change: STARTED without stored offsets, SKIPPED with them.
START_AGGREGATE = "Initial Snapshot"
WITHOUT_OFFSETS, WITH_OFFSETS = "STARTED", "SKIPPED"


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


@dataclass(frozen=True)
class Start:
    """One start of the connector's task; `offset` is that of its notice."""

    offset: int
    had_offsets: bool


def decode_start(value: bytes | None, offset: int) -> Start | None:
    """The start that a record tells of; None when it tells of something else."""
    told = json.loads(value) if value else None
    if told is None or told["aggregate_type"] != START_AGGREGATE:
        return None
    return Start(offset, told["type"] == WITH_OFFSETS) if told["type"] in (WITHOUT_OFFSETS, WITH_OFFSETS) else None


def has_started_since(settings: Settings, offset: int) -> bool:
    """Whether a start of the connector's task is told at or after the offset."""
    end = notice_offsets(settings)[1]
    if end <= offset:
        return False
    with Notices(settings, offset) as notices:
        return any(True for _ in notices.starts_before(end))


class Notices:
    """Reads the notices from an offset, or the oldest one kept; they are visible once their transaction has ended."""

    def __init__(self, settings: Settings, begin: int = 0) -> None:
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
        self._consumer.assign([TopicPartition(NOTIFICATION_TOPIC, 0, begin)])

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

    def starts_before(self, end: int) -> Iterator[Start]:
        """The starts told below `end`, a last stable offset; `BrokerUnavailable` when it is not come to in time."""
        deadline = time.monotonic() + REQUEST_LIMIT.total_seconds()
        while time.monotonic() < deadline:
            record = self._poll(0.2)
            if record is None:
                continue
            offset, error = record.offset() or 0, record.error()
            if error is None and offset < end and (start := decode_start(record.value(), offset)):
                yield start
            # A transaction's end takes an offset that no record has: only the partition's end tells that it is past.
            if error is not None and error.code() == KafkaError._PARTITION_EOF and offset >= end:
                return
        raise BrokerUnavailable(self._settings.kafka_bootstrap, f"{NOTIFICATION_TOPIC} was not read in time")

    def _poll(self, wait: float) -> Message | None:
        with named_errors(self._settings, NOTIFICATION_TOPIC):
            record = self._consumer.poll(wait)
            error = record.error() if record else None
            if error and error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                raise KafkaException(error)
        return record
