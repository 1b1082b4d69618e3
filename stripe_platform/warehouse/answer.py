"""What the published warehouse answers to one statement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import duckdb

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.warehouse.published import published_connection

BATCH = 10_000

# Gives all rows of a query, as often as it is asked.
Reader = Callable[[str], list[tuple[Any, ...]]]
# Column names, and the rows in batches that are read as they are asked for.
Answer = tuple[list[str], Iterator[list[tuple[Any, ...]]]]


class QueryFailed(StripePlatformError):
    """The engine refused the query; the message is its own."""


@contextmanager
def answer(settings: Settings, sql: str) -> Iterator[Answer]:
    """What the published file answers; `NoWarehouse` when nothing is published, `QueryFailed` when DuckDB refuses."""
    with published_connection(settings) as connection:
        try:
            connection.execute(sql)
        except duckdb.Error as error:
            raise QueryFailed(str(error)) from error
        yield [column[0] for column in connection.description or []], _batches(connection)


@contextmanager
def reader(settings: Settings, limit: timedelta) -> Iterator[Reader]:
    """Reads one published build for as long as the block lasts; errors as `published_connection`."""
    with published_connection(settings, limit=limit) as connection:
        yield lambda sql: connection.execute(sql).fetchall()


def _batches(connection: duckdb.DuckDBPyConnection) -> Iterator[list[tuple[Any, ...]]]:
    try:
        while batch := connection.fetchmany(BATCH):
            yield batch
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error
