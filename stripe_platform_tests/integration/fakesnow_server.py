"""fakesnow's server with what Snowflake does and fakesnow does not: run as a process of its own, port as argument.

Beside fakesnow, it clones and swaps schemas as Snowflake documents it, a session that is closed takes back the
transaction that it left open, and what fakesnow cannot do is an error at once (its answer, a server's fault, is sent
again by Snowflake's connector for a minute).
"""

import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import duckdb
import uvicorn
from fakesnow.conn import FakeSnowflakeConnection
from fakesnow.cursor import FakeSnowflakeCursor
from snowflake.connector.errors import ProgrammingError

CLONE = re.compile(r"create or replace transient schema (\w+) clone (\w+)", re.IGNORECASE)
SWAP = re.compile(r"alter schema (\w+) swap with (\w+)", re.IGNORECASE)
# The package has a function of the same name.
server = import_module("fakesnow.server")

# Snowflake's number for a statement that waited too long for another transaction.
LOCK_TIMED_OUT = 625


def tables(connection: duckdb.DuckDBPyConnection, schema: str) -> list[str]:
    rows = connection.execute(
        "select table_name from duckdb_tables() where schema_name = ? and database_name = current_database()", [schema]
    )
    return [name for (name,) in rows.fetchall()]


def clone(connection: duckdb.DuckDBPyConnection, target: str, source: str) -> None:
    connection.execute(f"drop schema if exists {target} cascade")
    connection.execute(f"create schema {target}")
    for table in tables(connection, source):
        connection.execute(f"create table {target}.{table} as from {source}.{table}")


def swap(connection: duckdb.DuckDBPyConnection, one: str, other: str) -> None:
    # Not at once, as Snowflake does it: DuckDB does not make a table again in the transaction that dropped it.
    clone(connection, "SWAPPED_OUT", one)
    clone(connection, one, other)
    clone(connection, other, "SWAPPED_OUT")
    connection.execute("drop schema SWAPPED_OUT cascade")


class Sessions(dict[str, FakeSnowflakeConnection]):
    """Closing one ends its transaction, as Snowflake does."""

    def __delitem__(self, token: str) -> None:
        with suppress(duckdb.TransactionException):
            self[token]._duck_conn.rollback()
        super().__delitem__(token)


def teach() -> None:
    execute = FakeSnowflakeCursor.execute

    def taught(self: FakeSnowflakeCursor, command: str, *arguments: Any, **options: Any) -> FakeSnowflakeCursor:
        for pattern, act in ((CLONE, clone), (SWAP, swap)):
            if match := pattern.fullmatch(command.strip()):
                act(self._duck_conn, match[1].upper(), match[2].upper())
                command = "select 'Statement executed successfully.' as status"
        try:
            return execute(self, command, *arguments, **options)
        except duckdb.TransactionException as conflict:
            raise ProgrammingError(str(conflict), errno=LOCK_TIMED_OUT, sqlstate="57014") from conflict
        except (AssertionError, duckdb.Error) as unsupported:
            text = f"{type(unsupported).__name__} {unsupported} in {command}"
            raise ProgrammingError(text, errno=1, sqlstate="0A000") from unsupported

    FakeSnowflakeCursor.execute = taught  # type: ignore[method-assign]
    vars(server)["sessions"] = Sessions()


if __name__ == "__main__":
    # A connection of Python's driver quotes times by the time zone of the process.
    os.environ["TZ"] = "UTC"
    teach()
    uvicorn.run(server.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
