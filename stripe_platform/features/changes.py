"""One change of one row, as the sink's documents take it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one row in plain values.

    `op` is Debezium's letter (c, u, r, d, t). In `row`: timestamptz as int microseconds since 1970 in UTC, date as int
    days since 1970, numeric as str, jsonb parsed (an int beyond 64 bits as str), all else as int, str, bool or None; of
    a delete the key columns only, others None. `unchanged` names the columns that the event leaves out because
    they did not change. `lsn` is None for records of snapshots.
    """

    table: str
    op: str
    row: Mapping[str, Any]
    unchanged: tuple[str, ...]
    partition: int
    offset: int
    lsn: int | None
