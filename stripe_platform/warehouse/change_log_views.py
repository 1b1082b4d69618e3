"""`raw.<table>`: the change log's Parquet files as views in the build file, bounded by a cut."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from stripe_platform.cdc.cut import Cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.raw import change_log
from stripe_platform.settings import Settings


class RawNotBegun(StripePlatformError):
    """A captured table has no raw change log yet."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"raw/{table} does not exist yet: drain it first: `stripe-platform run oltp_to_warehouse` does"
        )


@dataclass(frozen=True)
class RawTable:
    """One version of a table's change log: {partition: next offset}, and files that hold all below them.

    `whole_from` is {partition: offset below which a cut would miss some of the rows that were read again}.
    """

    topic_id: str
    next_offsets: Mapping[int, int]
    whole_from: Mapping[int, int]
    files: list[str]
    schema: pa.Schema


def read_raw(settings: Settings, table: str) -> RawTable:
    """What the change log of a table holds now; `RawNotBegun` before its first drain."""
    # Offsets first: a drain beside this adds columns and files, and the cut leaves out what they hold beyond it.
    log = change_log.ChangeLog.existing(settings, table)
    schema = change_log.columns(settings, table)
    if log is None or schema is None:
        raise RawNotBegun(table)
    return RawTable(log.topic_id, log.next_offsets, log.whole_from, change_log.parquet_files(settings, table), schema)


def create_views(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, RawTable], cut: Cut) -> None:
    """Create or replace `raw.<table>` for each table: every change below the cut, in no order.

    It has every column of the log, null where no change has carried it yet.
    """
    connection.execute("create schema if not exists raw")
    for name, raw in tables.items():
        connection.execute(
            f"create or replace view raw.{name} as {_select(connection, raw)} where {_below(cut.offsets.get(name, {}))}"
        )


def _select(connection: duckdb.DuckDBPyConnection, raw: RawTable) -> str:
    files = _files(raw.files) if raw.files else None
    stored = connection.sql(f"select * from {files}").columns if files else []
    log = connection.from_arrow(raw.schema.empty_table())
    columns = ", ".join(
        _quoted(name) if name in stored else f"null::{kind} as {_quoted(name)}"
        for name, kind in zip(log.columns, log.types, strict=True)
    )
    return f"select {columns} from {files or '(select 1 limit 0)'}"


def _files(files: list[str]) -> str:
    paths = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
    # By name: a file written before a column was added lacks it.
    return f"read_parquet([{paths}], union_by_name = true)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _below(offsets: Mapping[int, int]) -> str:
    bounds = [f"(_partition = {partition} and _offset < {offset})" for partition, offset in offsets.items()]
    return " or ".join(bounds) or "false"
