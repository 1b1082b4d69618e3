"""The load of the change log into Snowflake, against fakesnow's server with the real connector."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from snowflake.connector import SnowflakeConnection

from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import ChangeLog, row_count
from stripe_platform.settings import Settings
from stripe_platform.warehouse.change_log_views import read_raw
from stripe_platform.warehouse.snowflake import connection as snowflake_connection
from stripe_platform.warehouse.snowflake import load
from stripe_platform.warehouse.snowflake.columns import ColumnNeedsAnotherType
from stripe_platform.warehouse.snowflake.connection import SnowflakeRefused, connected, run, transaction
from stripe_platform.warehouse.snowflake.load import LoadedFromAnotherTopic, LoadIncomplete, load_change_log
from stripe_platform_tests.integration.snowflake_account import account, set_up
from stripe_platform_tests.integration.test_warehouse import UNCHANGED, Lake, charge, key

TABLE = "charges"


PARTITIONS = TABLES_BY_NAME[TABLE].topic_partitions
OF_PARTITION = f"table_name = '{TABLE}' and partition = 0"


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def snowflake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with account(tmp_path_factory.mktemp("snowflake")) as settings:
        yield settings


@pytest.fixture
def lake(snowflake: Settings, tmp_path: Path) -> Lake:
    """A change log without changes, and a database of its own without tables."""
    lake = Lake(tmp_path)
    database = f"stripe_{tmp_path.name.replace('-', '_')}"
    lake.settings = snowflake.model_copy(update={"stripe_platform_home": tmp_path, "snowflake_database": database})
    lake.settings.warehouse_folder.mkdir(parents=True)
    set_up(lake.settings)
    return lake


def load_all(lake: Lake, table: str = TABLE) -> int:
    return load_change_log(lake.settings, {table: read_raw(lake.settings, table)}, lake.cut())[table]


def rows(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    with connected(lake.settings, lake.settings.snowflake_role) as connection:
        return run(connection, "read", sql)


def places(lake: Lake) -> list[tuple[int, int]]:
    """(partition, offset) of every loaded change, in order; one that was loaded twice is there twice."""
    return [(int(p), int(o)) for p, o in rows(lake, f"select _partition, _offset from raw.{TABLE} order by 1, 2")]


def next_offset(lake: Lake) -> int:
    ((offset,),) = rows(lake, f"select next_offset from meta.raw_offsets where {OF_PARTITION}")
    return int(offset)


def test_every_change_below_the_cut_is_loaded_with_its_values_and_none_beyond(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 2**62, livemode=True), charge(key(2), 1, _op="u", metadata=UNCHANGED))
    lake.write(TABLE, {"_op": "t"}, partition=3)
    cut = lake.cut()
    lake.write(TABLE, charge(key(3), 5))
    loaded = load_change_log(lake.settings, {TABLE: read_raw(lake.settings, TABLE)}, cut)
    assert loaded == {TABLE: 3}
    assert rows(
        lake,
        "select id, amount, livemode, created::text, _op, _unchanged, _partition, _offset, _lsn "
        f"from raw.{TABLE} order by _lsn",
    ) == [
        (key(1), 2**62, True, "2026-01-31 23:59:59.999999+00", "c", "[]", 0, 0, 1010),
        (key(2), 1, None, "2026-01-31 23:59:59.999999+00", "u", '["metadata"]', 0, 1, 1020),
        (None, None, None, None, "t", "[]", 3, 0, 1030),
    ]


def test_exact_numbers_days_and_times_come_through_as_they_are(lake: Lake) -> None:
    rate = Decimal("0.0061234567")
    lake.write("exchange_rates", {"day": datetime(2026, 2, 28, tzinfo=UTC).date(), "currency": "jpy", "rate": rate})
    assert load_all(lake, "exchange_rates") == 1
    assert rows(lake, "select day::text, currency, rate from raw.exchange_rates") == [("2026-02-28", "jpy", rate)]


def test_a_second_load_of_the_same_cut_changes_nothing(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 1), charge(key(2), 2))
    assert load_all(lake) == 2
    assert load_all(lake) == 0
    assert places(lake) == [(0, 0), (0, 1)]


def test_offsets_move_where_no_change_was_kept(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 1))
    pass_offsets(lake, 7)
    assert load_all(lake) == 1
    assert next_offset(lake) == 7


def pass_offsets(lake: Lake, end: int) -> None:
    """Go on behind records that are no changes, as the end of a transaction is."""
    log = ChangeLog.existing(lake.settings, TABLE)
    assert log is not None
    log.append(pa.Table.from_pylist([], schema=log._no_changes().schema), {0: end})


def test_a_gap_mark_below_the_stored_offset_is_loaded_once(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 1))
    pass_offsets(lake, 7)
    assert load_all(lake) == 1
    lake.lose(TABLE, partition=0, count=0)
    assert load_all(lake) == 1
    assert rows(lake, f"select _offset, _op from raw.{TABLE} where _offset > 0") == [(6, "g")]
    assert load_all(lake) == 0
    lake.write(TABLE, charge(key(2), 2))
    assert load_all(lake) == 1
    assert places(lake) == [(0, 0), (0, 6), (0, 7)]


def test_of_two_loaders_of_a_gap_mark_alone_one_loads_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_offsets(lake, 7)
    load_all(lake)
    lake.lose(TABLE, partition=0, count=0)
    loads: list[int] = []

    def other(number: int, statement: str) -> None:
        if statement == "begin" and not loads:
            loads.append(-1)
            loads.append(load_all(lake))

    interrupted(monkeypatch, other)
    assert load_all(lake) == 0
    assert loads == [-1, 1]
    assert places(lake) == [(0, 6)]


def test_many_files_are_loaded_as_one(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "ROWS_PER_FILE", 2)
    monkeypatch.setattr(load, "ROWS_PER_GROUP", 2)
    lake.write(TABLE, *(charge(key(number), number) for number in range(1, 8)))
    assert load_all(lake) == 7
    assert places(lake) == [(0, offset) for offset in range(7)]


def test_a_new_column_is_added_and_is_null_before(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 1))
    load_all(lake)
    lake.rows[TABLE] = lake.rows[TABLE].append(pa.field("order", pa.string()))
    lake.write(TABLE, charge(key(2), 2, order="new"))
    load_all(lake)
    assert rows(lake, f'select id, "ORDER" from raw.{TABLE} order by _offset') == [(key(1), None), (key(2), "new")]


def test_a_column_whose_type_cannot_be_changed_is_named(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 1))
    load_all(lake)
    with connected(lake.settings, lake.settings.snowflake_role) as connection:
        run(connection, "drop", f"alter table raw.{TABLE} drop column amount")
        run(connection, "add", f"alter table raw.{TABLE} add column amount number(20,5)")
    with pytest.raises(ColumnNeedsAnotherType, match=r"raw\.charges has column AMOUNT as NUMBER\(20,5\)"):
        load_all(lake)


def test_a_topic_that_was_created_again_is_refused_before_anything_is_loaded(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 1))
    load_all(lake)
    lake.write(TABLE, charge(key(2), 2))
    with connected(lake.settings, lake.settings.snowflake_role) as connection:
        run(connection, "pretend", "update meta.raw_offsets set topic_id = 'the topic before'")
    with pytest.raises(LoadedFromAnotherTopic, match="created again"):
        load_all(lake)
    assert places(lake) == [(0, 0)]


def test_a_load_that_took_too_few_rows_is_taken_back(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.write(TABLE, charge(key(1), 1))
    copy = load._Load._copy
    with monkeypatch.context() as patched:
        patched.setattr(load._Load, "_copy", lambda self, staged, count: copy(self, staged, count + 1))
        with pytest.raises(LoadIncomplete, match="1 of 2 changes of charges"):
            load_all(lake)
    assert (places(lake), next_offset(lake)) == ([], 0)
    assert load_all(lake) == 1


Run = Callable[..., list[tuple[Any, ...]]]


def interrupted(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, str], None]) -> None:
    """Call `act` with number and text before each statement, and with its number and nothing after the last."""
    original, count = snowflake_connection.run, iter(range(1_000_000))

    def watched(connection: SnowflakeConnection, what: str, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        act(next(count), statement)
        result = original(connection, what, statement, values)
        if statement == "commit":
            act(next(count), "")
        return result

    for module in (load, snowflake_connection):
        monkeypatch.setattr(module, "run", watched)


def test_killed_between_any_two_statements_nothing_is_lost_or_doubled(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = 0
    for number in range(1_000):
        lake.write(TABLE, charge(key(number + 1), number))
        crashed = False
        with monkeypatch.context() as patched:

            def crash(statement: int, text: str, at: int = number) -> None:
                if statement == at:
                    raise Crash

            interrupted(patched, crash)
            try:
                load_all(lake)
            except Crash:
                crashed = True
        load_all(lake)
        assert places(lake) == [(0, offset) for offset in range(number + 1)], f"killed at statement {number}"
        assert next_offset(lake) == number + 1
        if not crashed:
            last = number
            break
    assert last >= 8


def test_of_two_loaders_at_once_one_loads_and_the_other_begins_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write(TABLE, charge(key(1), 1), charge(key(2), 2))
    loads: list[int] = []

    def other(number: int, statement: str) -> None:
        if statement == "begin" and not loads:
            loads.append(-1)
            loads.append(load_all(lake))

    interrupted(monkeypatch, other)
    assert load_all(lake) == 0
    assert loads == [-1, 2]
    assert places(lake) == [(0, 0), (0, 1)]


@pytest.mark.parametrize("has_loaded", [False, True])
def test_a_first_offset_that_two_loaders_stored_at_once_counts_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, *, has_loaded: bool
) -> None:
    lake.write(TABLE, charge(key(1), 1), charge(key(2), 2))
    stored: list[str] = []

    def other(number: int, statement: str) -> None:
        if statement.startswith("insert into meta.raw_offsets"):
            stored.append(statement)
        # The first offsets are stored: now those of the other come, who has looked for them before.
        if statement.startswith("select partition") and len(stored) == PARTITIONS:
            stored.append("by the other")
            if has_loaded:
                rows(lake, f"update meta.raw_offsets set next_offset = 2 where {OF_PARTITION}")
            rows(lake, f"insert into meta.raw_offsets select '{TABLE}', '{TABLE}-topic', 0, 0")

    interrupted(monkeypatch, other)
    assert load_all(lake) == (0 if has_loaded else 2)
    assert "by the other" in stored
    assert rows(lake, f"select next_offset, count(*) from meta.raw_offsets where {OF_PARTITION} group by 1") == [(2, 1)]


def test_a_loader_beside_an_open_transaction_fails_and_changes_nothing(lake: Lake) -> None:
    lake.write(TABLE, charge(key(1), 1))
    load_all(lake)
    lake.write(TABLE, charge(key(2), 2))
    with connected(lake.settings, lake.settings.snowflake_loader_role) as connection, transaction(connection):
        run(connection, "be a loader at work", "update meta.raw_offsets set next_offset = next_offset")
        with pytest.raises(SnowflakeRefused, match="move the offsets of charges"):
            load_all(lake)
    assert places(lake) == [(0, 0)]
    assert load_all(lake) == 1
    assert row_count(lake.settings, TABLE) == len(places(lake))
