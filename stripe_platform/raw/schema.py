"""The columns of the raw change log: from PostgreSQL's types to Arrow's, which Delta keeps."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from stripe_platform.cdc.envelope import CHANGE_FIELDS, TIMESTAMP
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.catalog import Column

ARROW_TYPES = {
    "uuid": pa.string(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "jsonb": pa.string(),
    "inet": pa.string(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamptz": TIMESTAMP,
}

# Delta's widest decimal.
WIDEST_NUMERIC = 38

# What the log adds to a change: when it was written, and by which definition of the table it was read.
LOG_FIELDS = (pa.field("_loaded_at", TIMESTAMP), pa.field("_schema_version", pa.string()))
BOOKKEEPING = frozenset(field.name for field in (*CHANGE_FIELDS, *LOG_FIELDS))

# What a field of a row says beside its name and type: see `oltp.catalog.Column`.
NUMBER = b"number"
FILLED_BEFORE = b"filled_before"


class FollowedColumn(NamedTuple):
    """A column of a definition that a log follows: its type in the log's words, its number in PostgreSQL's catalog.

    `number` is None where none was told. `filled_before` (ISO 8601, UTC) is set where rows that have not changed since
    may have a value that no change told, for the column was added to them with a default.
    """

    type: str
    number: int | None = None
    filled_before: str | None = None

    def is_other_than(self, later: "FollowedColumn") -> bool:
        """Another column under the same name, as far as the numbers tell."""
        return self.number is not None and later.number is not None and self.number != later.number


class UnsupportedColumn(StripePlatformError):
    """A captured column is of a type that the raw change log cannot hold exactly."""

    def __init__(self, table: str, column: Column) -> None:
        super().__init__(
            f"column {table}.{column.name} is of type {column.type}, which the raw change log cannot hold "
            f"exactly: use one of {', '.join(sorted(ARROW_TYPES))} or numeric(precision ≤ {WIDEST_NUMERIC}, "
            "scale), or add the type to raw/schema.py"
        )


class ReservedColumn(StripePlatformError):
    """A captured column is named as only the raw change log's own columns are."""

    def __init__(self, table: str, column: Column) -> None:
        super().__init__(
            f"column {table}.{column.name} begins with an underscore, as the raw change log's own columns do: "
            "rename it in PostgreSQL"
        )


class SchemaChanged(StripePlatformError):
    """A captured table changed in a way that its log follows only when it is told to."""

    def __init__(self, table: str, differences: Iterable[str]) -> None:
        super().__init__(
            f"raw/{table} stops, for the definition of {table} changed: {'; '.join(differences)}; its changes wait in "
            "the topic: undo a rename or a change of type (a dropped column does not come back: added again it is "
            "another), or have the log go on with the new definition, whatever it holds kept: "
            f"`stripe-platform accept-schema {table}`"
        )


class SchemaNotAcceptable(StripePlatformError):
    """No type of the log holds both a column's old values and its new ones exactly."""

    def __init__(self, table: str, column: str, held: pa.DataType, new: pa.DataType) -> None:
        super().__init__(
            f"column {table}.{column} is {held} in its log and {new} in PostgreSQL, and no type holds both exactly: "
            f"give the column its type back (or its name to no other), add one of the new type under a name of its "
            f"own, and run `stripe-platform accept-schema {table}` for whatever was dropped"
        )


class UnknownToCatalog(StripePlatformError):
    """Changes carry columns that neither the log nor PostgreSQL's catalog has."""

    def __init__(self, table: str, columns: Iterable[str]) -> None:
        super().__init__(
            f"unread changes of {table} carry columns that its log never had and PostgreSQL has no more: "
            f"{', '.join(sorted(columns))}; add each again with its type, drain, drop it, and run "
            f"`stripe-platform accept-schema {table}`; if they are personal now, restart the connector"
        )


def row_schema(table: str, columns: Iterable[Column]) -> pa.Schema:
    """The table's own columns as Arrow types, each nullable: a delete holds its key alone.

    Each field also says the column's `NUMBER` and `FILLED_BEFORE`, where the catalog tells them.
    `UnsupportedColumn` for a type that has no exact counterpart, `ReservedColumn` for a name that begins with
    an underscore.
    """
    columns = list(columns)
    for column in columns:
        if column.name.startswith("_"):
            raise ReservedColumn(table, column)
    return pa.schema([pa.field(column.name, _arrow_type(table, column), metadata=_told(column)) for column in columns])


def _told(column: Column) -> dict[bytes, bytes]:
    number = {} if column.number is None else {NUMBER: str(column.number).encode()}
    filled = {}
    if column.filled_before is not None:
        filled = {FILLED_BEFORE: column.filled_before.astimezone(UTC).isoformat().encode()}
    return number | filled


def _arrow_type(table: str, column: Column) -> pa.DataType:
    precision, scale = column.precision, column.scale
    if column.type == "numeric" and precision and scale is not None and scale <= precision <= WIDEST_NUMERIC:
        return pa.decimal128(precision, scale)
    if column.type not in ARROW_TYPES:
        raise UnsupportedColumn(table, column)
    return ARROW_TYPES[column.type]


def log_schema(row: pa.Schema) -> pa.Schema:
    """The schema of a new Delta table for rows of this schema."""
    return pa.schema([*(pa.field(field.name, field.type) for field in row), *CHANGE_FIELDS, *LOG_FIELDS])


def schema_version(row: pa.Schema) -> str:
    """Eight hexadecimal digits that stand for the names, types and order of the table's own columns.

    A hash and not a number: two readers that meet a new definition at once name it alike, without asking.
    """
    definition = "\n".join(f"{field.name} {field.type}" for field in row)
    return hashlib.sha256(definition.encode()).hexdigest()[:8]


def versioned(changes: pa.Table, row: pa.Schema) -> pa.Table:
    """The changes, each marked with the version of the definition `row` by which they were read."""
    field = LOG_FIELDS[1]
    version = pa.scalar(schema_version(row), field.type)
    return changes.append_column(field, pa.repeat(version, changes.num_rows))


def own_columns(stored: pa.Schema) -> pa.Schema:
    """The columns of a stored log without its bookkeeping: those that the table has, and those that it had."""
    return pa.schema([field for field in stored if field.name not in BOOKKEEPING])


def definition(row: pa.Schema) -> dict[str, FollowedColumn]:
    """{column: type and number}, which can be stored and compared."""
    return {field.name: FollowedColumn(str(field.type), _number(field)) for field in row}


def _number(field: pa.Field) -> int | None:
    number = (field.metadata or {}).get(NUMBER)
    return None if number is None else int(number)


def definition_after(before: Mapping[str, FollowedColumn], row: pa.Schema) -> dict[str, FollowedColumn]:
    """The definition of `row`; columns that `before` has not say by when older rows were filled, if they were."""

    def filled_before(field: pa.Field, column: FollowedColumn) -> str | None:
        earlier = before.get(field.name)
        if earlier is not None and not earlier.is_other_than(column):
            return earlier.filled_before
        told = (field.metadata or {}).get(FILLED_BEFORE)
        return None if told is None else told.decode()

    found = definition(row)
    return {
        field.name: found[field.name]._replace(filled_before=filled_before(field, found[field.name])) for field in row
    }


def replaced_columns(stored: pa.Schema, followed: Mapping[str, FollowedColumn], row: pa.Schema) -> tuple[str, ...]:
    """The columns of `row` under whose names the log holds values of other columns."""
    held = set(stored.names)
    return tuple(
        name
        for name, column in definition(row).items()
        if name in held and (name not in followed or followed[name].is_other_than(column))
    )


def refuse_changes(table: str, stored: pa.Schema, followed: Mapping[str, FollowedColumn], row: pa.Schema) -> None:
    """`SchemaChanged` unless `row` is the definition followed so far and columns that the log never had."""
    found, replaced = definition(row), replaced_columns(stored, followed, row)
    differences = [
        f"column {name} is gone (dropped or renamed)"
        if name not in found
        else f"column {name} was {column.type} and is {found[name].type}"
        for name, column in followed.items()
        if name not in found or (found[name].type != column.type and name not in replaced)
    ]
    differences += [
        f"column {name} is another one than that whose values the log holds under its name (dropped and added again, "
        "or renamed)"
        for name in replaced
    ]
    if differences:
        raise SchemaChanged(table, differences)


def merged(table: str, stored: pa.Schema, row: pa.Schema) -> pa.Schema:
    """The stored log's schema with the columns of `row` added, each type as wide as old and new values need.

    `SchemaNotAcceptable` when no type is wide enough for both.
    """
    found = {field.name: field.type for field in row}
    fields = []
    for field in stored:
        new = found.pop(field.name, field.type)
        kept = common_type(field.type, new)
        if kept is None:
            raise SchemaNotAcceptable(table, field.name, field.type, new)
        fields.append(pa.field(field.name, kept))
    return pa.schema(fields + [pa.field(name, type_) for name, type_ in found.items()])


def readable(stored: pa.Schema, row: pa.Schema) -> pa.Schema:
    """As what changes of the table are read: its columns in the log's types, then those that it has no more.

    Changes from before a column was dropped may be read after it.
    """
    held = {field.name: field for field in own_columns(stored)}
    return pa.schema([held.pop(field.name) for field in row] + list(held.values()))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The narrowest type of the log that holds every value of both exactly; None when there is none."""
    if one == other:
        return one
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return max(one, other, key=lambda type_: type_.bit_width)
    if pa.types.is_decimal(one) and pa.types.is_decimal(other):
        scale = max(one.scale, other.scale)
        precision = max(one.precision - one.scale, other.precision - other.scale) + scale
        return pa.decimal128(precision, scale) if precision <= WIDEST_NUMERIC else None
    return None


def widened(log: ds.Dataset, wanted: pa.Schema) -> pa.RecordBatchReader:
    """All rows of a stored log in a schema of the same columns or more, whose types are wider; a batch at a time."""

    def column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
        if field.name not in log.schema.names:
            return pa.nulls(len(batch), field.type)
        return batch.column(field.name).cast(field.type)

    batches = (
        pa.RecordBatch.from_arrays([column(batch, field) for field in wanted], schema=wanted)
        for batch in log.to_batches(batch_readahead=1, fragment_readahead=1)
    )
    return pa.RecordBatchReader.from_batches(wanted, batches)
