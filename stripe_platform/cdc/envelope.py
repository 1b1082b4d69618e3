"""Debezium's JSON envelope (without schemas) to typed columns; nothing else knows the envelope."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from stripe_platform.errors import StripePlatformError

TIMESTAMP = pa.timestamp("us", tz="UTC")

# What `decode` adds to the columns of the table.
CHANGE_FIELDS = (
    pa.field("_op", pa.string()),
    pa.field("_lsn", pa.int64()),
    pa.field("_xid", pa.int64()),
    pa.field("_committed_at", TIMESTAMP),
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_snapshot", pa.bool_()),
    pa.field("_unchanged", pa.list_(pa.string())),
)

OPERATIONS = ("c", "u", "d", "r", "t")
HAS_AFTER = pa.array(["c", "u", "r"])

# All fields of the connector are named, read or not: an unnamed one is inferred, which costs twice as much.
_SOURCE = pa.struct(
    {
        "version": pa.string(),
        "connector": pa.string(),
        "name": pa.string(),
        "ts_ms": pa.int64(),
        "snapshot": pa.string(),
        "db": pa.string(),
        "sequence": pa.string(),
        "ts_us": pa.int64(),
        "ts_ns": pa.int64(),
        "schema": pa.string(),
        "table": pa.string(),
        "txId": pa.int64(),
        "lsn": pa.int64(),
        "xmin": pa.int64(),
        "origin": pa.string(),
        "origin_lsn": pa.int64(),
    }
)
_TRANSACTION = pa.struct({"id": pa.string(), "total_order": pa.int64(), "data_collection_order": pa.int64()})
_CLOCKS = {"ts_ms": pa.int64(), "ts_us": pa.int64(), "ts_ns": pa.int64()}
_BLOCK_BYTES = 1024 * 1024


class UndecodableRecord(StripePlatformError):
    """A record that is not a change event of its table; nothing of its batch is taken."""

    def __init__(self, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"record at {topic} partition {partition} offset {offset} is not a change event of its table: "
            f"{reason}; its table waits there: correct what writes the topic, then read again"
        )
        self.topic, self.partition, self.offset, self.reason = topic, partition, offset, reason


class UnknownColumns(StripePlatformError):
    """Records carry columns that the reader's layout has not."""

    def __init__(self, table: str, columns: frozenset[str]) -> None:
        super().__init__(
            f"change events of {table} carry columns that PostgreSQL's catalog does not show as captured: "
            f"{', '.join(sorted(columns))}; if they were dropped or are personal, restart the connector so "
            "that it reads the table's definition again"
        )
        self.columns = columns


@dataclass(frozen=True)
class Layout:
    """What the change events of one table look like: its columns as typed by the catalog, its key.

    `placeholder` stands in an event for a large value that did not change.
    """

    table: str
    key: tuple[str, ...]
    columns: pa.Schema
    placeholder: str


@dataclass(frozen=True)
class Records:
    """Records of one topic as they lie in Kafka, element by element; those of a partition in offset order."""

    topic: str
    partitions: Sequence[int]
    offsets: Sequence[int]
    values: Sequence[bytes | None]


def decode(records: Records, layout: Layout, *, unknown_columns_count: bool = True) -> pa.Table:
    """One row per change, in the order of the records: the table's columns, then `CHANGE_FIELDS`.

    Tombstones (no value) give no row. A delete carries its key and null elsewhere, a truncate null
    everywhere; an unchanged large value is null and its column is named in `_unchanged`; a column that a
    record lacks is null. `UndecodableRecord` for the first record that is no change event of the table,
    `UnknownColumns` when a record has a column that the layout has not, unless these shall not count.
    """
    records = _without_tombstones(records)
    if not records.values:
        return pa.schema([*layout.columns, *CHANGE_FIELDS]).empty_table()
    parsed = _read_all(records, layout, "infer" if unknown_columns_count else "ignore")
    _refuse_unknown_columns(parsed, layout)
    _refuse_broken_contract(parsed, records, layout)
    return _changes(parsed, records, layout)


def _without_tombstones(records: Records) -> Records:
    if None not in records.values:
        return records
    kept = [index for index, value in enumerate(records.values) if value is not None]
    return Records(
        records.topic,
        [records.partitions[index] for index in kept],
        [records.offsets[index] for index in kept],
        [records.values[index] for index in kept],
    )


def _read_all(records: Records, layout: Layout, unexpected: str) -> pa.Table:
    envelope = _envelope(layout.columns)
    try:
        return _read(records.values, envelope, unexpected)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        first = _first_unreadable(records.values, envelope)
    # Raised outside the handler: the parser's message quotes the value.
    raise _refusal(records, first, _reason(records.values[first], envelope))


def _envelope(columns: pa.Schema) -> pa.Schema:
    row = pa.struct(list(columns))
    return pa.schema(
        {
            "before": row,
            "after": row,
            "source": _SOURCE,
            "transaction": _TRANSACTION,
            "op": pa.string(),
            **_CLOCKS,
        }
    )


def _read(values: Sequence[bytes | None], envelope: pa.Schema, unexpected: str = "infer") -> pa.Table:
    """The envelopes as columns, one row per value, or ArrowInvalid or UnicodeDecodeError.

    Each value is wrapped with its position: so no value can pass for two rows, or two for one.
    """
    text = b"\n".join([b'{"position":%d,"event":%b}' % (place, value or b"") for place, value in enumerate(values)])
    if not text.isascii():
        text.decode()
    longest = max(len(value) for value in values if value is not None)
    parsed = pj.read_json(
        pa.BufferReader(text),
        read_options=pj.ReadOptions(block_size=max(_BLOCK_BYTES, 2 * longest)),
        parse_options=pj.ParseOptions(
            explicit_schema=pa.schema({"position": pa.int64(), "event": pa.struct(list(envelope))}),
            unexpected_field_behavior=unexpected,
        ),
    )
    if parsed.num_rows != len(values) or parsed["position"].to_pylist() != list(range(len(values))):
        raise pa.ArrowInvalid("a value is not one JSON object")
    return pa.Table.from_struct_array(parsed["event"])


def _is_readable(values: Sequence[bytes | None], envelope: pa.Schema, unexpected: str = "infer") -> bool:
    try:
        _read(values, envelope, unexpected)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return False
    return True


def _first_unreadable(values: Sequence[bytes | None], envelope: pa.Schema) -> int:
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _is_readable(values[low:middle], envelope) else (low, middle)
    return low


def _reason(value: bytes | None, envelope: pa.Schema) -> str:
    """Why a value cannot be read, in words that hold nothing of it."""
    try:
        document = json.loads(value or b"")
    except (ValueError, RecursionError):
        return "not valid JSON"
    if not isinstance(document, dict):
        return "not a JSON object"
    for part in envelope:
        if pa.types.is_struct(part.type) and isinstance(document.get(part.name), dict):
            for field in part.type:
                if not _is_readable([value], pa.schema({part.name: pa.struct([field])}), "ignore"):
                    return f"{part.name}.{field.name} is not of type {field.type}"
        elif not _is_readable([value], pa.schema([part]), "ignore"):
            return f"{part.name} is not of type {part.type}"
    return "not in the shape of an envelope"


def _refusal(records: Records, index: int, reason: str) -> UndecodableRecord:
    return UndecodableRecord(records.topic, records.partitions[index], records.offsets[index], reason)


def _refuse_unknown_columns(parsed: pa.Table, layout: Layout) -> None:
    found = {field.name for image in ("before", "after") for field in parsed.schema.field(image).type}
    if unknown := found - set(layout.columns.names):
        raise UnknownColumns(layout.table, frozenset(unknown))


def _refuse_broken_contract(parsed: pa.Table, records: Records, layout: Layout) -> None:
    operation = parsed["op"]
    has_after = pc.is_in(operation, HAS_AFTER)
    is_delete = pc.fill_null(pc.equal(operation, "d"), False)
    source = _fields(parsed["source"])
    faults: dict[str, pa.ChunkedArray] = {
        "op is missing or none of c, u, d, r, t": pc.invert(pc.is_in(operation, pa.array(OPERATIONS))),
        "after is missing": pc.and_(has_after, pc.is_null(parsed["after"])),
        "before is missing": pc.and_(is_delete, pc.is_null(parsed["before"])),
        "source.table is another one": pc.fill_null(pc.not_equal(source["table"], layout.table), True),
        "source.ts_us and source.ts_ms are missing": pc.and_(pc.is_null(source["ts_us"]), pc.is_null(source["ts_ms"])),
        "source.lsn is missing": pc.and_(pc.is_null(source["lsn"]), pc.invert(_is_snapshot(source))),
    }
    before, after = _fields(parsed["before"]), _fields(parsed["after"])
    for name in layout.key:
        faults[f"key column {name} is missing"] = pc.or_(
            pc.and_(has_after, pc.is_null(after[name])), pc.and_(is_delete, pc.is_null(before[name]))
        )
    for field in layout.columns:
        if pa.types.is_date(field.type):
            # Python, DuckDB and Snowflake agree on years 1 to 9999 only; PostgreSQL's infinity lies beyond.
            faults[f"{field.name} is infinite or outside the years 1 to 9999"] = _is_beyond(after[field.name])
    first = {reason: pc.index(mask, True).as_py() for reason, mask in faults.items()}
    found = [(index, reason) for reason, index in first.items() if index >= 0]
    if found:
        raise _refusal(records, *min(found))


def _is_beyond(days: pa.ChunkedArray) -> pa.ChunkedArray:
    day = days.cast(pa.int32())
    return pc.fill_null(pc.or_(pc.less(day, -719162), pc.greater(day, 2932896)), False)


def _is_snapshot(source: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """True for records of initial and of incremental snapshots ('true', 'last', 'incremental', …)."""
    return pc.fill_null(pc.not_equal(source["snapshot"], "false"), False)


def _fields(structs: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """The fields of a struct column; null where the struct is null."""
    return dict(zip([field.name for field in structs.type], structs.flatten(), strict=True))


def _changes(parsed: pa.Table, records: Records, layout: Layout) -> pa.Table:
    source, after = _fields(parsed["source"]), _fields(parsed["after"])
    row = {field.name: after[field.name] for field in layout.columns}
    if pc.any(pc.equal(parsed["op"], "d")).as_py():
        # Of the old row only the key is the log's; the rest Debezium fills with nulls or with defaults.
        before = _fields(parsed["before"])
        row |= {name: pc.coalesce(after[name], before[name]) for name in layout.key}
    row, unchanged = _without_placeholders(row, layout)
    committed = pc.coalesce(source["ts_us"], pc.multiply(source["ts_ms"], 1000))
    return pa.Table.from_arrays(
        [
            *row.values(),
            parsed["op"],
            source["lsn"],
            source["txId"],
            committed.cast(TIMESTAMP),
            pa.array(records.partitions, pa.int32()),
            pa.array(records.offsets, pa.int64()),
            _is_snapshot(source),
            unchanged,
        ],
        schema=pa.schema([*layout.columns, *CHANGE_FIELDS]),
    )


def _without_placeholders(
    row: dict[str, pa.ChunkedArray], layout: Layout
) -> tuple[dict[str, pa.ChunkedArray], pa.Array]:
    """The row with null for each unchanged large value, and the names of these columns per row."""
    names: dict[int, list[str]] = {}
    kept = dict(row)
    for name, values in row.items():
        if not pa.types.is_string(values.type):
            continue
        is_placeholder = pc.equal(values, layout.placeholder)
        if pc.any(is_placeholder).as_py():
            kept[name] = pc.if_else(pc.fill_null(is_placeholder, False), None, values)
            for index in pc.indices_nonzero(is_placeholder).to_pylist():
                names.setdefault(index, []).append(name)
    rows = len(next(iter(row.values())))
    return kept, pa.array((names.get(index, []) for index in range(rows)), pa.list_(pa.string()), size=rows)
