"""Whole frames into and out of PostgreSQL by COPY."""

from io import BytesIO

import polars as pl
import psycopg
from psycopg import sql

from stripe_platform.oltp.tables import SCHEMA


def copy_in(connection: psycopg.Connection, table: str, frame: pl.DataFrame, schema: str = SCHEMA) -> None:
    """Append the rows of a frame; its columns are named as the table's, the others take their defaults."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(schema, table), sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    text = BytesIO()
    frame.write_csv(text, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f+00")
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(text.getbuffer())


def copy_out(connection: psycopg.Connection, query: sql.SQL, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """The result of a query as a frame of the given columns and types, faster than row by row."""
    text = BytesIO()
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(query)) as copy,
    ):
        for block in copy:
            text.write(block)
    if not text.tell():
        return pl.DataFrame(schema=schema)
    text.seek(0)
    return pl.read_csv(text, has_header=False, schema=schema)
