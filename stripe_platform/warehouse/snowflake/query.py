"""Queries on the published marts on Snowflake, and the rows of the models that were built."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from snowflake.connector.errors import Error

from stripe_platform.settings import Settings
from stripe_platform.warehouse.answer import BATCH, Answer, QueryFailed, Reader
from stripe_platform.warehouse.built import StoredColumn
from stripe_platform.warehouse.snowflake.connection import connected, run


@contextmanager
def answer(settings: Settings, sql: str) -> Iterator[Answer]:
    """What the published marts answer, column names in lower case; `QueryFailed` when Snowflake refuses."""
    with connected(settings, settings.snowflake_role) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(sql)
            names = [column.name.lower() for column in cursor.description]
        except Error as error:
            raise QueryFailed(str(error.msg)) from error
        yield names, iter(lambda: [tuple(row) for row in cursor.fetchmany(BATCH)], [])


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
            "where table_schema not in ('RAW', 'META', 'INFORMATION_SCHEMA', upper(%s))",
            [settings.snowflake_schema],
        )
        counts = " union all ".join(
            f"select '{name}', count(*) from {schema}.{name}" for schema, name in relations if name in models
        )
        return {name: int(count) for name, count in run(connection, "count rows", counts)} if counts else {}


def stored_columns(settings: Settings) -> list[StoredColumn]:
    """Every column of every table and view of the build."""
    with connected(settings, settings.snowflake_role) as connection:
        return run(
            connection,
            "read the columns of the models",
            "select table_catalog, table_schema, table_name, column_name, data_type from information_schema.columns "
            "where table_schema not in ('INFORMATION_SCHEMA', upper(%s)) order by 1, 2, 3, ordinal_position",
            [settings.snowflake_schema],
        )
