from datetime import timedelta
from io import StringIO
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from stripe_platform.settings import Settings
from stripe_platform.warehouse.answer import QueryFailed
from stripe_platform.warehouse.published import NoWarehouse, WarehouseUnreadable, published_path
from stripe_platform.warehouse.query import print_table, query_csv, query_rows


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a stack whose published file holds one table of three rows."""
    settings = Settings(stripe_platform_home=tmp_path)
    settings.warehouse_folder.mkdir()
    with duckdb.connect(str(published_path(settings))) as connection:
        connection.execute("create schema marts; create table marts.charges as select range as amount from range(3)")
    return settings


def csv_of(settings: Settings, sql: str) -> str:
    stream = StringIO()
    query_csv(settings, sql, stream)
    return stream.getvalue()


def test_csv_has_a_header_and_one_line_per_row(settings: Settings) -> None:
    assert csv_of(settings, "select amount from marts.charges order by 1") == "amount\n0\n1\n2\n"


def test_csv_of_no_rows_is_the_header(settings: Settings) -> None:
    assert csv_of(settings, "select amount from marts.charges where false") == "amount\n"


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("timestamptz '2026-01-01 01:00:00+01'", "2026-01-01T00:00:00.000000Z"),
        ("timestamptz '2026-01-01 00:00:00.000001Z'", "2026-01-01T00:00:00.000001Z"),
        ("date '2026-01-01'", "2026-01-01"),
        ("null", ""),
        ("true", "true"),
        ("sum(9000000000000000000::bigint) * 2", "18000000000000000000"),
        ("1.50::decimal(5, 2)", "1.50"),
        ("'a,\"b\"'", '"a,""b"""'),
        ("{'a': [1, 2]}", '"{""a"": [1, 2]}"'),
        ("'ab'::blob", "6162"),
    ],
)
def test_csv_writes_every_value_of_a_type_in_one_form(settings: Settings, expression: str, text: str) -> None:
    assert csv_of(settings, f"select {expression} as value, 1 as one").splitlines()[1] == f"{text},1"


def test_a_result_of_many_batches_is_written_whole(settings: Settings) -> None:
    assert len(csv_of(settings, "from range(25_000)").splitlines()) == 25_001


def test_times_are_utc_whatever_the_machine_says(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert csv_of(settings, "select date '2026-01-01'::timestamptz as t") == "t\n2026-01-01T00:00:00.000000Z\n"


def test_without_a_warehouse_the_error_names_the_command_that_builds_one(tmp_path: Path) -> None:
    with pytest.raises(NoWarehouse, match="stripe-platform run oltp_to_warehouse"):
        query_rows(Settings(stripe_platform_home=tmp_path), "select 1")


def test_a_refused_query_writes_nothing_and_gives_the_words_of_duckdb(settings: Settings) -> None:
    stream = StringIO()
    with pytest.raises(QueryFailed, match="Table with name nothing does not exist"):
        query_csv(settings, "select * from nothing", stream)
    assert stream.getvalue() == ""


def test_a_query_that_fails_on_its_rows_is_refused_like_any_other(settings: Settings) -> None:
    with pytest.raises(QueryFailed):
        query_rows(settings, "select ('x' || amount)::int from marts.charges")


def test_a_statement_that_writes_is_refused(settings: Settings) -> None:
    with pytest.raises(QueryFailed, match="read-only"):
        query_rows(settings, "delete from marts.charges")


def test_a_file_that_is_no_database_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stripe_platform.warehouse.published.OPEN_LIMIT", timedelta(seconds=0.1))
    published_path(settings).write_bytes(b"no database" * 10_000)
    with pytest.raises(WarehouseUnreadable, match="publish it anew"):
        query_rows(settings, "select 1")


def test_the_table_for_people_shows_the_first_rows_and_says_so(settings: Settings) -> None:
    console = Console(file=StringIO(), width=80)
    print_table(settings, "select range as n from range(1_000)", console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "199" in shown
    assert " 200 " not in shown.replace("first 200 rows", "")
    assert "--csv" in shown


def test_a_table_for_people_shows_values_and_names_with_their_brackets(settings: Settings) -> None:
    out = StringIO()
    print_table(settings, """select '[/foo]:key:' as "[bar]" """, Console(file=out))
    assert "[/foo]:key:" in out.getvalue()
    assert "[bar]" in out.getvalue()
