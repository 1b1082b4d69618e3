"""Records as the connector writes them, put into the topics of captured tables by hand."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from confluent_kafka import Producer

from stripe_platform.cdc.offsets import all_written_visible
from stripe_platform.cdc.topics import LARGEST_MESSAGE_BYTES, topic_for
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings

LIMIT_SECONDS = 60

Record = tuple[str, int, bytes, bytes | None]


def record(table: str, op: str, row: dict[str, Any], *, lsn: int | None = None) -> Record:
    """A change of a row, in the partition of its key; without an LSN it is of a snapshot."""
    image = "before" if op == "d" else "after"
    snapshot = "true" if lsn is None else "false"
    source = {"table": table, "ts_us": 1_767_225_600_000_000, "lsn": lsn, "snapshot": snapshot}
    value = json.dumps({"op": op, image: row, "source": source}).encode()
    key = json.dumps({name: row.get(name) for name in TABLES_BY_NAME[table].key}).encode()
    partition = UUID(row["id"]).int % TABLES_BY_NAME[table].topic_partitions
    return table, partition, value, key


def created(table: str, id: str | None = None, **values: Any) -> Record:
    row = {"id": id or str(uuid4()), "amount": 5, "created": "2026-01-01T00:00:00.123456Z", "metadata": "{}"}
    return record(table, "c", row | values, lsn=1)


@contextmanager
def transactions(settings: Settings) -> Iterator[Producer]:
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "transactional.id": str(uuid4()),
            "message.max.bytes": 4 * LARGEST_MESSAGE_BYTES,
            "compression.type": "zstd",
            "log_level": 0,
        }
    )
    producer.init_transactions(LIMIT_SECONDS)
    yield producer
    # A commit is acknowledged before its markers are in the partitions.
    deadline = time.monotonic() + LIMIT_SECONDS

    def check_time() -> None:
        assert time.monotonic() < deadline, "what was committed has not become visible"

    all_written_visible(settings, TABLES_BY_NAME, check_time)


def write(producer: Producer, records: Iterable[Record], *, committed: bool = True) -> None:
    """One transaction of records."""
    producer.begin_transaction()
    for table, partition, value, key in records:
        producer.produce(topic_for(table), value, key, partition, headers=[("test", b"\x00\xff")])
        producer.poll(0)
    if committed:
        producer.commit_transaction(LIMIT_SECONDS)
    else:
        # Else nothing of it was sent, and there is nothing to skip.
        producer.flush(LIMIT_SECONDS)
        producer.abort_transaction(LIMIT_SECONDS)


def produce(settings: Settings, *records: Record) -> None:
    with transactions(settings) as producer:
        write(producer, records)


def raw(table: str, value: bytes, *, partition: int = 0, key: bytes = b"no key") -> Record:
    return table, partition, value, key
