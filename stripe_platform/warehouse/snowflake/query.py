"""Queries on the published marts on Snowflake, and the rows of the models that were built."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from snowflake.connector.cursor import SnowflakeCursor
from snowflake.connector.errors import Error

from stripe_platform.settings import Settings
from stripe_platform.warehouse.answer import BATCH, Answer, QueryFailed, Reader
from stripe_platform.warehouse.built import StoredColumn
from stripe_platform.warehouse.snowflake.build import following_schema
from stripe_platform.warehouse.snowflake.connection import connected, run

# Marts are in more than one schema, and only one of them is dbt's.
_OF_THE_BUILD = "table_schema not in ('INFORMATION_SCHEMA', upper(%s), upper(%s))"


@contextmanager
def answer(settings: Settings, sql: str) -> Iterator[Answer]:
    """What the published marts answer, column names in lower case; `QueryFailed` when Snowflake refuses."""
    with connected(settings, settings.snowflake_role) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(sql)
            names = [column.name.lower() for column in cursor.description]
        except Error as error:
            raise QueryFailed(str(error.msg)) from error
        yield names, _batches(cursor)


def _batches(cursor: SnowflakeCursor) -> Iterator[list[tuple[Any, ...]]]:
    try:
        while batch := cursor.fetchmany(BATCH):
            yield [tuple(row) for row in batch]
    except Error as error:
        raise QueryFailed(str(error.msg)) from error


@contextmanager
def reader(settings: Settings, limit: timedelta) -> Iterator[Reader]:
    """Reads the published marts, and whatever else is there, in one session; `limit` is the connection's own."""
    with connected(settings, settings.snowflake_role) as connection:
        yield lambda sql: run(connection, "answer a query", sql)


def row_counts(settings: Settings, models: Sequence[str]) -> dict[str, int]:
    """{model: rows} of models that dbt has built; a model's name is that of its one table or view."""
    with connected(settings, settings.snowflake_role) as connection:
        relations = run(
            connection,
            "find the models",
            "select distinct lower(table_schema), lower(table_name) from information_schema.columns "
            f"where table_schema not in ('RAW', 'META') and {_OF_THE_BUILD}",
            _published(settings),
        )
        counts = " union all ".join(
            f"select '{name}', count(*) from {schema}.{name}" for schema, name in relations if name in models
        )
        return {name: int(count) for name, count in run(connection, "count rows", counts)} if counts else {}


def stored_columns(settings: Settings) -> list[StoredColumn]:
    """Every column of the change log and of what dbt has built on it; names as Snowflake has them, in upper case."""
    with connected(settings, settings.snowflake_role) as connection:
        columns = run(
            connection,
            "read the columns of the models",
            "select table_catalog, table_schema, table_name, column_name, data_type from information_schema.columns "
            f"where {_OF_THE_BUILD} order by 1, 2, 3, 4",
            _published(settings),
        )
    return [(database, schema, relation, column, kind) for database, schema, relation, column, kind in columns]


def _published(settings: Settings) -> list[str]:
    """The published marts, and the ones that a publication had prepared when it was killed."""
    return [settings.snowflake_schema, following_schema(settings.snowflake_schema)]
