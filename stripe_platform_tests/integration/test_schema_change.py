"""Migrations under traffic: what is followed, what stops its table alone, and both ways back, up to staging."""

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.report import TablesStopped
from stripe_platform.cdc.snapshot import take_snapshots
from stripe_platform.oltp.catalog import Column, captured_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import MIGRATIONS, migrate
from stripe_platform.oltp.partitions import ensure_partitions, months_to_come
from stripe_platform.oltp.replication import PUBLICATION
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw import drain as drain_module
from stripe_platform.raw.acceptance import Acceptance, accept_schema
from stripe_platform.raw.change_log import next_offsets, parquet_files
from stripe_platform.raw.definition import table_columns
from stripe_platform.raw.drain import drain, drain_up_to
from stripe_platform.raw.missing_defaults import rows_without_default
from stripe_platform.raw.schema import SchemaChanged, SchemaNotAcceptable, UnknownToCatalog
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import mark_tested, prepare_build, publish
from stripe_platform.warehouse.build_rules import CutInGap, builder
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment
from stripe_platform.warehouse.query import query_rows

LIMIT = timedelta(seconds=60)
INSERT = {
    "merchants": "(business_name, mcc, country, default_currency) VALUES ('of a test', '5411', 'DE', 'eur')",
    "currencies": "(code, name, exponent) VALUES (%s, 'of a test', 2)",
    "countries": "(iso2, name, region) VALUES (%s, 'of a test', 'nowhere')",
}


class Source:
    """A platform whose tables are changed by migrations of its own, each in a new file behind the project's."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._numbers = count(9000)
        for file in MIGRATIONS.iterdir():
            if file.name.endswith(".sql"):
                (folder / file.name).write_text(file.read_text())

    def migrate(self, sql: str) -> None:
        (self._folder / f"{next(self._numbers)}_of_a_test.sql").write_text(sql)
        migrate(self.settings, self._folder)

    def retype(self, table: str, column: str, type_: str, using: str = "") -> None:
        """PostgreSQL refuses it for a published column; what is taken out is published again in one transaction."""
        self.migrate(
            f"ALTER PUBLICATION {PUBLICATION} DROP TABLE payments.{table}; "
            f"ALTER TABLE payments.{table} ALTER COLUMN {column} TYPE {type_} {using}"
        )

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with connect(self.settings) as postgres:
            done = postgres.execute(statement.encode(), values)
            return done.fetchall() if done.description else []

    def add(self, table: str, *key: str, **columns: Any) -> None:
        """A new row, in which these columns are then set by an update."""
        (identity,) = TABLES_BY_NAME[table].key
        ((id,),) = self.rows(f"INSERT INTO {table} {INSERT[table]} RETURNING {identity}", *key)
        self.set(table, id, **columns)

    def set(self, table: str, id: Any, **columns: Any) -> None:
        (identity,) = TABLES_BY_NAME[table].key
        for name, value in columns.items():
            self.rows(f"UPDATE {table} SET {name} = %s WHERE {identity} = %s", value, id)

    def drain(self, *tables: str) -> None:
        cut = make_cut(self.settings, timeout=LIMIT)
        drain_up_to(self.settings, tables or TABLES_BY_NAME, cut.offsets, limit=LIMIT)

    def stops(self, table: str, match: str) -> Exception:
        """Drain everything: this table alone stops, at its offsets; what its error says."""
        stored, cut = next_offsets(self.settings, table), make_cut(self.settings, timeout=LIMIT)
        with pytest.raises(TablesStopped, match=match) as stopped:
            drain(self.settings, bounds=cut.offsets)
        assert list(stopped.value.errors) == [table]
        assert next_offsets(self.settings, table) == stored
        for other in TABLES_BY_NAME.keys() - {table}:
            reached = next_offsets(self.settings, other)
            assert all(reached[place] >= end for place, end in cut.offsets[other].items()), other
        return stopped.value.errors[table]

    def staged(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Drain to a cut, build the table's staging on it, publish; these columns in order."""
        cut = make_cut(self.settings, timeout=LIMIT)
        drain_up_to(self.settings, TABLES_BY_NAME, cut.offsets, limit=LIMIT)
        target = str(self.settings.home / "target")
        with builder(self.settings), dbt_environment(self.settings):
            prepared = prepare_build(self.settings, cut)
            command = [str(DBT), "--quiet", "run", "--target-path", target, "--log-path", target, "--select"]
            subprocess.run([*command, f"state_{table}", f"stg_{table}"], cwd=PROJECT_DIR, timeout=120, check=True)
            mark_tested(self.settings, prepared)
        publish(self.settings)
        return sorted(query_rows(self.settings, f"select {columns} from staging.stg_{table}"), key=str)


@pytest.fixture(scope="module")
def source(new_platform: Callable[[], Settings], tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A stack of its own, whose tables are changed."""
    return Source(new_platform(), tmp_path_factory.mktemp("migrations"))


@contextmanager
def running(step: Callable[[int], None]) -> Iterator[None]:
    """Repeat the step beside the block, and once more after it; its failure fails the test."""
    ended, failures = threading.Event(), list[BaseException]()

    def repeat() -> None:
        try:
            for number in count():
                is_last = ended.is_set()
                step(number)
                if is_last:
                    return
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LIMIT.total_seconds())
    assert not thread.is_alive()
    assert failures == []


def test_a_column_added_under_traffic_comes_to_staging_with_its_values_and_nothing_is_restarted(
    source: Source,
) -> None:
    source.add("merchants")
    assert len(source.staged("merchants", "merchant_id")) == 1
    has_column = threading.Event()
    written: list[int] = []

    def write(number: int) -> None:
        source.rows(
            "UPDATE merchants SET business_name = %s WHERE id = (SELECT min(id::text)::uuid FROM merchants)",
            f"changed {number}",
        )
        source.add("merchants", **({"loyalty": f"tier {number}"} if has_column.is_set() and number % 2 else {}))
        written.append(number)

    def read(_: int) -> None:
        drain(source.settings, ["merchants"])

    with running(write), running(read):
        wait_for(lambda: len(written) >= 20)
        source.migrate("ALTER TABLE payments.merchants ADD COLUMN loyalty text")
        has_column.set()
        so_far = len(written)
        wait_for(lambda: len(written) >= so_far + 20)
    staged = source.staged("merchants", "merchant_id, business_name, loyalty")
    rows = source.rows("SELECT id::text, business_name, loyalty FROM merchants")
    assert staged == sorted(rows, key=str)
    tiers = [loyalty for *_, loyalty in rows if loyalty]
    assert len(tiers) >= 5
    assert len(rows) - len(tiers) >= 20


def wait_for(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(LIMIT.total_seconds() * 20)):
        if condition():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not come to pass")


def test_a_column_that_another_drain_followed_since_the_catalog_was_looked_at_stops_nothing(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add("countries", "XA")
    source.drain()
    source.add("countries", "XB")
    looks: list[int] = []

    def look_and_be_overtaken(settings: Settings) -> Mapping[str, tuple[Column, ...]]:
        seen = table_columns(settings)
        looks.append(1)
        if len(looks) == 1:
            source.migrate("ALTER TABLE payments.countries ADD COLUMN flag text")
            source.set("countries", "XB", flag="red")
            source.drain("countries")
        return seen

    monkeypatch.setattr(drain_module, "table_columns", look_and_be_overtaken)
    drain(source.settings, ["countries"])
    assert_stored(source, "countries", "flag", {"XA": None, "XB": "red"})


def test_the_rows_that_a_default_filled_are_told_until_a_snapshot_has_read_them(source: Source) -> None:
    source.add("currencies", "qqy")
    source.drain()
    source.migrate(
        "ALTER TABLE payments.currencies ADD COLUMN digits integer NOT NULL DEFAULT 2, ADD COLUMN remark text"
    )
    source.drain()
    ((rows,),) = source.rows("SELECT count(*) FROM currencies")
    assert rows_without_default(source.settings, "currencies") == {"digits": rows}
    source.set("currencies", "qqy", name="changed since")
    source.drain()
    assert rows_without_default(source.settings, "currencies") == {"digits": rows - 1}
    take_snapshots(source.settings, ["currencies"], again=True, limit=LIMIT)
    source.drain()
    assert rows_without_default(source.settings, "currencies") == {}
    assert set(source.staged("currencies", "digits")) == {(2,)}


def test_the_catalog_tells_of_each_column_whether_older_rows_may_be_filled(source: Source) -> None:
    with connect(source.settings) as postgres:
        ensure_partitions(postgres, months_to_come(datetime.now(UTC)))
        for table in ("charges", "merchants"):
            for change in (
                "ADD COLUMN rewritten uuid NOT NULL DEFAULT gen_random_uuid()",
                "ADD COLUMN made_for_each uuid DEFAULT gen_random_uuid()",
                "ADD COLUMN without text",
                "ADD COLUMN kept integer DEFAULT 1",
                "ADD COLUMN dropped integer DEFAULT 1",
                "ALTER COLUMN rewritten DROP DEFAULT, ALTER COLUMN dropped DROP DEFAULT",
            ):
                postgres.execute(f"ALTER TABLE payments.{table} {change}".encode())
        columns = captured_columns(postgres)
        postgres.rollback()
    for table in ("charges", "merchants"):
        filled = {column.name: column.filled_before is not None for column in columns[table][-5:]}
        assert filled == {"rewritten": True, "made_for_each": True, "without": False, "kept": True, "dropped": True}
        assert len({column.number for column in columns[table]}) == len(columns[table])


def test_a_renamed_column_stops_its_table_alone_until_it_has_its_name_back(source: Source) -> None:
    source.migrate("ALTER TABLE payments.countries ADD COLUMN hymn text")
    source.add("countries", "QL", hymn="long")
    source.drain()
    source.add("countries", "QM", hymn="from before it was renamed, read after it")
    source.migrate("ALTER TABLE payments.countries RENAME COLUMN hymn TO song")
    error = source.stops("countries", "column hymn is gone.*`stripe-platform accept-schema countries`")
    assert isinstance(error, SchemaChanged)
    source.migrate("ALTER TABLE payments.countries RENAME COLUMN song TO hymn")
    source.add("countries", "QN", hymn="short")
    assert_stored(
        source, "countries", "hymn", {"QL": "long", "QM": "from before it was renamed, read after it", "QN": "short"}
    )


def test_a_column_dropped_and_added_again_is_another_one_and_once_accepted_shows_no_value_of_the_first(
    source: Source,
) -> None:
    source.migrate("ALTER TABLE payments.countries ADD COLUMN anthem text")
    source.add("countries", "QC", anthem="staged")
    source.add("countries", "QD", anthem="staged, then another column changed")
    assert len(source.staged("countries", "anthem")) > 2
    source.add("countries", "QE", anthem="unread when it was dropped")
    source.migrate("ALTER TABLE payments.countries DROP COLUMN anthem CASCADE")
    source.migrate("ALTER TABLE payments.countries ADD COLUMN anthem text")
    source.add("countries", "QF", anthem="of the second")
    source.set("countries", "QD", region="elsewhere")
    error = source.stops("countries", "column anthem is another one.*`stripe-platform accept-schema countries`")
    assert isinstance(error, SchemaChanged)
    before = make_cut(source.settings, timeout=LIMIT)
    assert accept_schema(source.settings, "countries", limit=LIMIT) == Acceptance((), (), {}, ("anthem",))
    assert accept_schema(source.settings, "countries", limit=LIMIT).is_empty
    source.drain()
    with pytest.raises(CutInGap, match="countries, whose rows were read again"), builder(source.settings):
        prepare_build(source.settings, before)
    expected = {"QC": None, "QD": None, "QE": None, "QF": "of the second"}
    assert_staged(source, "countries", "iso2, anthem", expected)
    assert_stored(source, "countries", "max(anthem) over (partition by iso2)", {"QC": "staged"})


def test_an_accepted_drop_keeps_what_was_stored_and_the_rest_flows(source: Source) -> None:
    source.migrate("ALTER TABLE payments.countries ADD COLUMN motto text")
    source.add("countries", "QQ", motto="kept")
    source.drain()
    source.add("countries", "QR", motto="unread when it was dropped")
    source.migrate("ALTER TABLE payments.countries DROP COLUMN motto CASCADE")
    source.add("countries", "QS")
    source.stops("countries", "column motto is gone")
    assert accept_schema(source.settings, "countries") == Acceptance(("motto",), (), {})
    assert accept_schema(source.settings, "countries").is_empty
    expected = {"QQ": "kept", "QR": "unread when it was dropped", "QS": None}
    assert_staged(source, "countries", "iso2, motto", expected)


def assert_staged(source: Source, table: str, columns: str, expected: dict[str, Any]) -> None:
    staged = {key: value for key, value in source.staged(table, columns) if key in expected}
    assert staged == expected


def assert_stored(source: Source, table: str, value: str, expected: dict[str, Any]) -> None:
    """Of each key's newest change in the log, once what waits is drained."""
    source.drain(table)
    (key,) = TABLES_BY_NAME[table].key
    changes = duckdb.read_parquet(parquet_files(source.settings, table), union_by_name=True)
    stored = dict(changes.order("_offset").select(f"{key}, {value}").fetchall())
    assert {key: stored.get(key) for key in expected} == expected


def test_a_rename_is_accepted_as_a_drop_and_an_addition(source: Source) -> None:
    source.migrate("ALTER TABLE payments.countries ADD COLUMN people integer")
    source.add("countries", "QU", people=5)
    source.drain()
    source.migrate("ALTER TABLE payments.countries RENAME COLUMN people TO inhabitants")
    source.add("countries", "QV", inhabitants=7)
    source.stops("countries", "column people is gone")
    assert accept_schema(source.settings, "countries") == Acceptance(("people",), ("inhabitants",), {})
    assert_stored(source, "countries", "concat(people, '/', inhabitants)", {"QU": "5/", "QV": "/7"})
    source.add("countries", "QT")
    source.set("countries", "QU", inhabitants=6)
    assert_staged(source, "countries", "iso2, inhabitants", {"QT": None, "QU": 6, "QV": 7})


def test_a_column_renamed_and_renamed_back_leaves_changes_that_are_read_when_the_name_is_added(
    source: Source,
) -> None:
    source.migrate("ALTER TABLE payments.countries ADD COLUMN capital text")
    source.add("countries", "QW", capital="before")
    source.drain()
    source.migrate("ALTER TABLE payments.countries RENAME COLUMN capital TO seat")
    source.add("countries", "QX", seat="between")
    source.migrate("ALTER TABLE payments.countries RENAME COLUMN seat TO capital")
    error = source.stops("countries", "seat; add each again with its type, drain, drop it.*accept-schema countries")
    assert isinstance(error, UnknownToCatalog)
    source.migrate("ALTER TABLE payments.countries ADD COLUMN seat text")
    source.drain()
    source.migrate("ALTER TABLE payments.countries DROP COLUMN seat CASCADE")
    accept_schema(source.settings, "countries")
    expected = {"QW": "before/", "QX": "/between"}
    assert_stored(source, "countries", "concat(capital, '/', seat)", expected)


def test_an_accepted_wider_type_reaches_staging_with_values_beyond_the_narrow_one(source: Source) -> None:
    source.migrate("ALTER TABLE payments.currencies ADD COLUMN units integer")
    source.add("currencies", "qqa", units=1)
    assert_staged(source, "currencies", "code, units", {"qqa": 1})
    source.retype("currencies", "units", "bigint")
    source.add("currencies", "qqb", units=2**40)
    source.stops("currencies", "column units was int32 and is int64.*`stripe-platform accept-schema currencies`")
    assert accept_schema(source.settings, "currencies").retyped == {"units": ("int32", "int64")}
    assert_staged(source, "currencies", "code, units", {"qqa": 1, "qqb": 2**40})


def test_an_accepted_narrower_type_leaves_the_digits_that_were_stored(source: Source) -> None:
    source.migrate("ALTER TABLE payments.currencies ADD COLUMN quota numeric(20, 10)")
    source.add("currencies", "qqc", quota=Decimal("1.0000000001"))
    source.drain()
    source.retype("currencies", "quota", "numeric(10, 2)")
    source.add("currencies", "qqd", quota=Decimal("12345678.25"))
    source.stops("currencies", r"column quota was decimal128\(20, 10\) and is decimal128\(10, 2\)")
    accept_schema(source.settings, "currencies")
    expected = {"qqc": Decimal("1.0000000001"), "qqd": Decimal("12345678.25")}
    assert_stored(source, "currencies", "quota", expected)


def test_a_type_that_no_log_bridges_is_refused_until_it_is_put_back(source: Source) -> None:
    source.migrate("ALTER TABLE payments.currencies ADD COLUMN sign text")
    source.add("currencies", "qqe", sign="1")
    source.drain()
    source.retype("currencies", "sign", "integer", "USING sign::integer")
    source.stops("currencies", "column sign was string and is int32")
    with pytest.raises(SchemaNotAcceptable, match=r"currencies\.sign is string in its log and int32 in PostgreSQL"):
        accept_schema(source.settings, "currencies")
    source.retype("currencies", "sign", "text", "USING sign::text")
    source.add("currencies", "qqf", sign="two")
    assert_stored(source, "currencies", "sign", {"qqe": "1", "qqf": "two"})
