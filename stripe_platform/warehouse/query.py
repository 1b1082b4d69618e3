"""Queries on the published warehouse for people and scripts, read only."""

import csv
import json
from datetime import UTC, date, datetime, time
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stripe_platform.settings import Settings
from stripe_platform.warehouse.engines import engine_of

ROWS_FOR_PEOPLE = 200


def query_rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a query, as the engine's Python values (times aware, in UTC).

    `NoWarehouse` when nothing is published, `QueryFailed` with the engine's message when it refuses the query.
    """
    with engine_of(settings).answer(settings, sql) as (_, batches):
        return [row for batch in batches for row in batch]


def query_csv(settings: Settings, sql: str, stream: TextIO) -> None:
    """Write the result of one statement as CSV with a header: times as ISO 8601 in UTC, null as nothing.

    Nothing is written when the statement fails before its first row. Errors as `query_rows`.
    """
    with engine_of(settings).answer(settings, sql) as (names, batches):
        first = next(batches, [])
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(value) for value in row] for row in first)
        for batch in batches:
            writer.writerows([_text(value) for value in row] for row in batch)


def print_table(settings: Settings, sql: str, console: Console) -> None:
    """Show the result of one statement as a table, its first rows only when there are many. Errors as `query_rows`."""
    with engine_of(settings).answer(settings, sql) as (names, batches):
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
