"""What PostgreSQL's catalog says today of the tables that the raw change log follows."""

from collections.abc import Iterable
from datetime import datetime

import pyarrow as pa

from stripe_platform.cdc.snapshot import NotCaptured
from stripe_platform.oltp.catalog import Column, captured_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.schema import row_schema
from stripe_platform.settings import Settings


def table_columns(settings: Settings) -> dict[str, tuple[Column, ...]]:
    """{table: its captured columns} of every captured table."""
    with connect(settings) as postgres:
        return captured_columns(postgres)


def table_definition(settings: Settings, table: str) -> pa.Schema:
    """The captured columns of one table in the log's types; errors as `row_schema`."""
    return row_schema(table, table_columns(settings)[table])


def postgres_clock(settings: Settings) -> datetime:
    """PostgreSQL's time now: what a snapshot requested later reads was committed by then."""
    with connect(settings) as postgres:
        now: datetime
        ((now,),) = postgres.execute("SELECT clock_timestamp()").fetchall()
    return now


def require_captured(tables: Iterable[str]) -> None:
    """`NotCaptured` when one of the names is not that of a captured table."""
    if unknown := [table for table in tables if table not in TABLES_BY_NAME]:
        raise NotCaptured(unknown)
