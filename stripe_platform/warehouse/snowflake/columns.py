"""The columns of `raw.<table>` on Snowflake: from the change log's Arrow types to Snowflake's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from snowflake.connector import SnowflakeConnection

from stripe_platform.errors import StripePlatformError
from stripe_platform.warehouse.snowflake.connection import run

COLUMNS = (
    "select table_name, column_name, data_type, numeric_precision, numeric_scale "
    "from information_schema.columns where table_schema = 'RAW'"
)


TYPES = (
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_date32, "DATE"),
    (pa.types.is_string, "TEXT"),
    (pa.types.is_large_string, "TEXT"),
    # As JSON text, for Snowflake's scanners do not agree on how a list in Parquet is to be read.
    (pa.types.is_list, "TEXT"),
)


class ColumnNeedsAnotherType(StripePlatformError):
    """A column of the change log was given a type that Snowflake's column of that name cannot take."""

    def __init__(self, table: str, column: str, held: str, needed: str) -> None:
        super().__init__(
            f"raw.{table} has column {column} as {held} on Snowflake, and the change log has it as {needed} now: load "
            f"the table anew: docs/snowflake.md, 'A table from the beginning'"
        )


class NoTypeForColumn(StripePlatformError):
    """A column of the change log is of a type that is not known to be one of Snowflake's."""

    def __init__(self, table: str, column: str, type_: pa.DataType) -> None:
        super().__init__(
            f"raw/{table} has column {column} of type {type_}, for which no type of Snowflake's is chosen: name one in "
            "stripe_platform/warehouse/snowflake/columns.py, or set WAREHOUSE=duckdb"
        )


@dataclass(frozen=True)
class Column:
    """A column as Snowflake's information schema tells it: name in upper case, type with precision and scale."""

    name: str
    type: str


def snowflake_columns(table: str, log: pa.Schema) -> list[Column]:
    """The columns of a table's change log, in its order; `NoTypeForColumn` for one that Snowflake cannot have."""
    columns = []
    for field in log:
        if (type_ := _snowflake_type(field.type)) is None:
            raise NoTypeForColumn(table, field.name, field.type)
        columns.append(Column(field.name.upper(), type_))
    return columns


def _snowflake_type(type_: pa.DataType) -> str | None:
    if pa.types.is_decimal(type_):
        return f"NUMBER({type_.precision},{type_.scale})"
    if pa.types.is_integer(type_):
        return "NUMBER(38,0)"
    if pa.types.is_timestamp(type_):
        # Aware, as in PostgreSQL and DuckDB: the contracts of the marts name one type for both engines.
        return "TIMESTAMP_TZ"
    return next((name for is_such, name in TYPES if is_such(type_)), None)


def held_columns(connection: SnowflakeConnection) -> dict[str, dict[str, Column]]:
    """{table: {name: column}} of all tables of the change log that Snowflake has."""
    held: dict[str, dict[str, Column]] = {}
    for table, name, kind, precision, scale in run(connection, "read the columns of the change log", COLUMNS):
        type_ = f"{kind}({precision},{scale})" if kind == "NUMBER" else str(kind)
        held.setdefault(str(table).lower(), {})[name] = Column(name, type_)
    return held


def create_statement(table: str, columns: Iterable[Column]) -> str:
    """Creates `raw.<table>`, unless another loader was faster."""
    definitions = ", ".join(f'"{column.name}" {column.type}' for column in columns)
    return f"create table if not exists raw.{table} ({definitions})"


def alter_statements(table: str, held: Mapping[str, Column], wanted: Iterable[Column]) -> list[str]:
    """What adds to a table the columns that it lacks; `ColumnNeedsAnotherType` for one that would have to change."""
    statements = []
    for column in wanted:
        if column.name not in held:
            statements.append(f'alter table raw.{table} add column if not exists "{column.name}" {column.type}')
        elif held[column.name] != column:
            raise ColumnNeedsAnotherType(table, column.name, held[column.name].type, column.type)
    return statements
