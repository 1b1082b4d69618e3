"""The columns of the raw change log: from PostgreSQL's types to Arrow's, which Delta keeps."""

import hashlib
from collections.abc import Iterable

import pyarrow as pa

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
    """A captured table changed in a way that the raw change log cannot follow by itself."""

    def __init__(self, table: str, differences: Iterable[str]) -> None:
        super().__init__(
            f"the definition of {table} no longer fits its raw change log: {'; '.join(differences)}; only "
            "added columns are followed: restore the column, or move the log's folder away, to build it anew"
        )


def row_schema(table: str, columns: Iterable[Column]) -> pa.Schema:
    """The table's own columns as Arrow types, each nullable: a delete holds its key alone.

    `UnsupportedColumn` for a type that has no exact counterpart, `ReservedColumn` for a name that begins with
    an underscore.
    """
    columns = list(columns)
    for column in columns:
        if column.name.startswith("_"):
            raise ReservedColumn(table, column)
    return pa.schema([pa.field(column.name, _arrow_type(table, column)) for column in columns])


def _arrow_type(table: str, column: Column) -> pa.DataType:
    precision, scale = column.precision, column.scale
    if column.type == "numeric" and precision and scale is not None and scale <= precision <= WIDEST_NUMERIC:
        return pa.decimal128(precision, scale)
    if column.type not in ARROW_TYPES:
        raise UnsupportedColumn(table, column)
    return ARROW_TYPES[column.type]


def log_schema(row: pa.Schema) -> pa.Schema:
    """The schema of a new Delta table for rows of this schema."""
    return pa.schema([*row, *CHANGE_FIELDS, *LOG_FIELDS])


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


def added_columns(table: str, stored: pa.Schema, row: pa.Schema) -> list[pa.Field]:
    """The fields of `row` that the stored log has not; `SchemaChanged` unless that is all the difference."""
    own = [field for field in stored if field.name not in BOOKKEEPING]
    found = {field.name: field.type for field in row}
    differences = [
        f"column {field.name} is gone (dropped or renamed)"
        if field.name not in found
        else f"column {field.name} was {field.type} and is {found[field.name]}"
        for field in own
        if found.get(field.name) != field.type
    ]
    if differences:
        raise SchemaChanged(table, differences)
    return [field for field in row if field.name not in stored.names]
