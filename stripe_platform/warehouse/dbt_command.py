"""dbt's command (`stripe-platform-dbt`), in whose output and logs no value of a row stands.

A database may quote the value that it could not convert, or the key that was there twice, and dbt prints and logs its
words, which Dagster shows. Here such an error keeps its kind alone; what is wrong with the SQL is told in full.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import duckdb
from dbt.cli.main import cli

from stripe_platform.settings import WarehouseEngine

WITHHELD = "the database's own words are left out, for they may quote values of rows"
# Snowflake's SQLSTATE classes of errors that come of values: cardinality, data, integrity.
OF_VALUES = ("21", "22", "23")
Handler = Callable[..., AbstractContextManager[None]]


def main() -> None:
    """Run dbt with the arguments of this process."""
    # Only the engine in use is imported: Snowflake's connector takes a second.
    if os.environ.get("WAREHOUSE") == WarehouseEngine.SNOWFLAKE:
        connections = import_module("dbt.adapters.snowflake.connections")
        withhold_values(connections.SnowflakeConnectionManager, on_snowflake)
    else:
        connections = import_module("dbt.adapters.duckdb.connections")
        withhold_values(connections.DuckDBConnectionManager, on_duckdb)
    cli()


def withhold_values(manager: Any, told: Callable[[Exception], Exception]) -> None:
    """Have a connection manager of dbt handle, in the place of an error, what is `told` of it."""
    handle: Handler = manager.exception_handler

    @contextmanager
    def handle_without_values(self: Any, *arguments: Any, **named: Any) -> Iterator[None]:
        with handle(self, *arguments, **named):
            try:
                yield
            except Exception as error:
                if (instead := told(error)) is error:
                    raise
                raise instead from None

    manager.exception_handler = handle_without_values


def on_duckdb(error: Exception) -> Exception:
    """The error, or one of its kind without the value that it came of."""
    if isinstance(error, duckdb.DataError | duckdb.IntegrityError | duckdb.InvalidInputException):
        return duckdb.DataError(f"{type(error).__name__}: {WITHHELD}")
    return error


def on_snowflake(error: Exception) -> Exception:
    """As `on_duckdb`, with what finds the query in Snowflake's query history."""
    refused: Any = error
    if not (getattr(refused, "sqlstate", None) or "").startswith(OF_VALUES):
        return error
    found = {"errno": refused.errno, "sqlstate": refused.sqlstate, "sfqid": refused.sfqid}
    words = "error {errno}, SQLSTATE {sqlstate}, query {sfqid}".format(**found)
    instead: Exception = type(refused)(f"{words}: {WITHHELD}; see the query history", **found)
    return instead
