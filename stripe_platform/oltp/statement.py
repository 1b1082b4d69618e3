"""A hand-typed statement on PostgreSQL."""

import csv
from datetime import datetime
from typing import TextIO

import psycopg

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.connection import connect
from stripe_platform.settings import Settings


class StatementFailed(StripePlatformError):
    """PostgreSQL refused a statement that the user typed."""


def execute_statement(settings: Settings, statement: str, out: TextIO) -> None:
    """Execute `statement` (or several) in one transaction and commit it.

    The last result goes to `out`: rows as CSV with a header, times in ISO 8601; else the command's tag.
    """
    with connect(settings) as connection:
        try:
            cursor = connection.execute(statement.encode())
            connection.commit()
        except psycopg.Error as error:
            # The user's own statement, in the user's own terminal: PostgreSQL's words are the clearest.
            raise StatementFailed(f"PostgreSQL refused the statement: {str(error).strip()}") from error
        while cursor.nextset():
            pass
        if cursor.description is None:
            out.write(f"{cursor.statusmessage}\n")
            return
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(column.name for column in cursor.description)
        for row in cursor:
            writer.writerow(_iso(value) for value in row)


def _iso(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
