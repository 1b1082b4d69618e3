"""Queries on the published warehouse for people and scripts, read only."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any, TextIO

import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.warehouse.published import published_connection

BATCH = 10_000
ROWS_FOR_PEOPLE = 200


class QueryFailed(StripePlatformError):
    """DuckDB refused the query; the message is its own."""


def query_rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a query, as DuckDB's Python values (times aware, in UTC).

    `NoWarehouse` when nothing is published, `QueryFailed` with DuckDB's message when it refuses the query.
    """
    with published_connection(settings) as connection:
        return [row for batch in _result(connection, sql)[1] for row in batch]


def query_csv(settings: Settings, sql: str, stream: TextIO) -> None:
    """Write the result of one statement as CSV with a header: times as ISO 8601 in UTC, null as nothing.

    Nothing is written when the statement fails before its first row. Errors as `query_rows`.
    """
    with published_connection(settings) as connection:
        names, batches = _result(connection, sql)
        first = next(batches, [])
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(value) for value in row] for row in first)
        for batch in batches:
            writer.writerows([_text(value) for value in row] for row in batch)


def print_table(settings: Settings, sql: str, console: Console) -> None:
    """Show the result of one statement as a table, its first rows only when there are many. Errors as `query_rows`."""
    with published_connection(settings) as connection:
        names, batches = _result(connection, sql)
        rows = next(batches, [])
    table = Table()
    # As text, for what is data may look like markup.
    for name in names:
        table.add_column(Text(name))
    for row in rows[:ROWS_FOR_PEOPLE]:
        table.add_row(*(Text(_text(value)) for value in row))
    console.print(table)
    if len(rows) > ROWS_FOR_PEOPLE:
        console.print(f"first {ROWS_FOR_PEOPLE} rows; --csv gives all")


def _result(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
    """Column names, and the rows in batches that are read as they are asked for."""
    try:
        connection.execute(sql)
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error
    return [column[0] for column in connection.description or []], _batches(connection)


def _batches(connection: duckdb.DuckDBPyConnection) -> Iterator[list[tuple[Any, ...]]]:
    try:
        while batch := connection.fetchmany(BATCH):
            yield batch
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error


def _text(value: object) -> str:
    """One value as text, the same form for every value of a type."""
    match value:
        case None:
            text = ""
        case bool():
            text = "true" if value else "false"
        case datetime(tzinfo=None):
            text = value.isoformat(timespec="microseconds")
        case datetime():
            text = value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        case date() | time():
            text = value.isoformat()
        case list() | dict():
            text = json.dumps(value, default=_text, ensure_ascii=False)
        case bytes():
            text = value.hex()
        case _:
            text = str(value)
    return text
