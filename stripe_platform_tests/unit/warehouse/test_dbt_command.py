from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pytest
from snowflake.connector.errors import ProgrammingError

from stripe_platform.warehouse.dbt_command import on_duckdb, on_snowflake, withhold_values

NUMERIC = ProgrammingError(
    "Numeric value 'jane@example.com' is not recognized", errno=100038, sqlstate="22018", sfqid="01b2"
)
SYNTAX = ProgrammingError("syntax error line 1 at position 7 unexpected 'frm'", errno=1003, sqlstate="42000")


def duckdb_error(sql: str) -> duckdb.Error:
    with duckdb.connect() as connection:
        connection.execute("create table accounts (id integer primary key)")
        connection.execute("insert into accounts values (4711)")
        with pytest.raises(duckdb.Error) as caught:
            connection.execute(sql)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("ConversionException", "select cast(concat('jane', id) as integer) from accounts"),
        ("OutOfRangeException", "select cast(id as bigint) * 9223372036854775807 from accounts"),
        ("ConstraintException", "insert into accounts select id from accounts"),
    ],
)
def test_duckdbs_words_about_a_value_are_left_out(kind: str, sql: str) -> None:
    error = duckdb_error(sql)
    assert "4711" in str(error), "DuckDB quotes no value any more"
    told = str(on_duckdb(error))
    assert told.startswith(f"{kind}: ")
    assert "4711" not in told


def test_snowflakes_words_about_a_value_are_left_out_and_the_query_can_be_found() -> None:
    told = str(on_snowflake(NUMERIC))
    assert "error 100038, SQLSTATE 22018, query 01b2" in told
    assert "jane" not in told


def test_words_about_the_sql_stay_as_they_are() -> None:
    missing = duckdb_error("select * from nowhere")
    assert on_duckdb(missing) is missing
    assert on_snowflake(SYNTAX) is SYNTAX


def test_dbt_handles_what_is_told_of_an_error_and_knows_of_no_other() -> None:
    handled = []

    class Manager:
        @contextmanager
        def exception_handler(self, sql: str) -> Iterator[None]:
            try:
                yield
            except Exception as error:
                handled.append((sql, str(error), error.__suppress_context__))

    withhold_values(Manager, on_snowflake)
    manager: Any = Manager()
    for error in (NUMERIC, SYNTAX):
        with manager.exception_handler("select 1"):
            raise error
    (sql, value, is_alone), (_, syntax, _) = handled
    assert sql == "select 1"
    assert "jane" not in value
    assert is_alone
    assert "unexpected 'frm'" in syntax
