"""What PostgreSQL, the sink connector's documents and ours say of the charges, in one form that can be compared."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from stripe_platform.oltp.connection import connect
from stripe_platform.settings import Settings

# (id, created in microseconds, merchant, and the fields that are alike everywhere); ids are 32 hexadecimal digits.
Row = tuple[Any, ...]
ALIKE = ("amount", "amount_captured", "currency", "status")


@dataclass(frozen=True)
class Fingerprint:
    """How many charges there are, and a checksum over their rows, whatever their order."""

    count: int
    checksum: int


def fingerprint(rows: Iterable[Row]) -> Fingerprint:
    """The fingerprint of so many rows, one by one."""
    count = total = 0
    for row in rows:
        count += 1
        total += int.from_bytes(blake2b(repr(row).encode(), digest_size=8).digest(), "big")
    return Fingerprint(count, total % 2**64)


def in_postgres(settings: Settings) -> Fingerprint:
    """The charges as they are in PostgreSQL."""
    query = (
        "SELECT replace(id::text, '-', ''), (extract(epoch FROM created) * 1000000)::bigint, "
        f"replace(merchant_id::text, '-', ''), {', '.join(ALIKE)} FROM charges"
    )
    with connect(settings) as postgres, postgres.cursor(name="charges") as cursor:
        return fingerprint(cursor.execute(query))


def of_sink_connector(document: dict[str, Any]) -> Row:
    """The row of a document as the sink connector stores it: Debezium's values, the key within `_id`."""
    key = document["_id"]
    since_epoch = datetime.fromisoformat(key["created"]) - datetime.fromtimestamp(0, UTC)
    id_, merchant = (text.replace("-", "") for text in (key["id"], document["merchant_id"]))
    return (id_, since_epoch // timedelta(microseconds=1), merchant, *(document[name] for name in ALIKE))


def of_ours(document: dict[str, Any]) -> Row:
    """The row of one of our documents."""
    id_, merchant = (document[name].partition("_")[2] for name in ("_id", "merchant"))
    return (id_, document["created"], merchant, *(document[name] for name in ALIKE))
