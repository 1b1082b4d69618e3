"""A change of one source row in plain values: what the document store's writers know of Debezium and Arrow."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stripe_platform.oltp.catalog import Column

# What the values of a column are in a change, by PostgreSQL's type; every other type is "text".
KINDS = {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "bool": "boolean",
    "timestamptz": "microseconds",
    "date": "days",
    "numeric": "decimal",
    "jsonb": "document",
}
TEXT = "text"
_NUMBERED = {"microseconds": pa.int64(), "days": pa.int32()}

# The longest number that certainly is an int64: Python refuses to read integers of thousands of digits.
_DIGITS_OF_INT64 = 19

TRUNCATE = "a truncate is not applied: rebuild the collection"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row of a captured table, at its place in the topic.

    `op` is Debezium's letter (c, u, r, d). In `row` a timestamp is an int of microseconds since the epoch (UTC), a
    date one of days, a numeric a text with all its digits, a jsonb the parsed document: of its numbers those are
    texts that neither an int64 nor a double holds exactly. Of a delete the key alone is not None. `unchanged` names
    the columns whose value the event leaves out because it did not change. `lsn` is None for records of a snapshot.
    """

    table: str
    op: str
    row: Mapping[str, Any]
    unchanged: tuple[str, ...]
    partition: int
    offset: int
    lsn: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that cannot be applied; the reason holds nothing of it."""

    partition: int
    offset: int
    reason: str


def kinds_of(columns: Iterable[Column]) -> dict[str, str]:
    """{column: kind of its values in a change}."""
    return {column.name: KINDS.get(column.type, TEXT) for column in columns}


def changes_of(table: str, decoded: pa.Table, kinds: Mapping[str, str]) -> list[Change | Refused]:
    """The changes that `cdc.envelope.decode` gave, row by row; `kinds` names the table's own columns among them."""
    faults: dict[int, str] = {}
    for index in pc.indices_nonzero(pc.equal(decoded["_op"], "t")).to_pylist():
        faults[index] = TRUNCATE
    columns = [_plain(decoded[name], name, kind, faults) for name, kind in kinds.items()]
    names = tuple(kinds)
    lsns = pc.if_else(decoded["_snapshot"], None, decoded["_lsn"])
    places = (decoded[name].to_pylist() for name in ("_op", "_partition", "_offset"))
    changes: list[Change | Refused] = [
        Change(table, op, dict(zip(names, row, strict=True)), unchanged, partition, offset, lsn)
        for op, partition, offset, lsn, unchanged, row in zip(
            *places, lsns.to_pylist(), _unchanged(decoded), zip(*columns, strict=True), strict=True
        )
    ]
    for index, reason in faults.items():
        changes[index] = Refused(changes[index].partition, changes[index].offset, reason)
    return changes


def _unchanged(decoded: pa.Table) -> list[tuple[str, ...]]:
    # Hardly ever is one left out.
    if not pc.sum(pc.list_value_length(decoded["_unchanged"])).as_py():
        return [()] * len(decoded)
    return [tuple(names) for names in decoded["_unchanged"].to_pylist()]


def _plain(column: pa.ChunkedArray, name: str, kind: str, faults: dict[int, str]) -> list[Any]:
    if kind in _NUMBERED:
        # Before it becomes Python's: a datetime for every value costs ten times as much.
        column = column.cast(_NUMBERED[kind])
    values: list[Any] = column.to_pylist()
    if kind == "decimal":
        return [None if value is None else format(value, "f") for value in values]
    if kind == "document":
        return _documents(values, name, faults)
    return values


def _documents(texts: list[str | None], name: str, faults: dict[int, str]) -> list[Any]:
    documents = []
    for index, text in enumerate(texts):
        document = None
        if text is not None:
            try:
                document = _JSON.decode(text)
            except (ValueError, RecursionError):
                faults[index] = f"{name} is not JSON, or nested too deep"
        documents.append(document)
    return documents


def _whole(text: str) -> int | str:
    if len(text.lstrip("-")) > _DIGITS_OF_INT64:
        return text
    number = int(text)
    return number if -(2**63) <= number < 2**63 else text


def _fraction(text: str) -> float | str:
    number = float(text)
    is_exact = repr(number) == text or (abs(number) < float("inf") and Decimal(repr(number)) == Decimal(text))
    return number if is_exact else text


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity, which are not JSON.
    raise ValueError(name)


_JSON = json.JSONDecoder(parse_int=_whole, parse_float=_fraction, parse_constant=_refuse_constant)
