"""DuckDB and Snowflake give the same rows of every model: fakesnow's server, the real connector and dbt-snowflake.

Both build from one change log, each by its own load path, in several steps: what the first build makes whole, the later
ones change by the rows that changed.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pytest

from stripe_platform.cdc.cut import Cut
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path, publish
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.engines import engine_of
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment
from stripe_platform.warehouse.query import query_rows
from stripe_platform.warehouse.snowflake.build import NothingTested
from stripe_platform.warehouse.snowflake.connection import connected, run
from stripe_platform_tests.integration.snowflake_account import account, set_up
from stripe_platform_tests.integration.test_warehouse import (
    BEFORE_MIDNIGHT,
    CHARGE,
    EPOCH,
    MERCHANT,
    UNCHANGED,
    YEN_CHARGE,
    History,
    Lake,
    charge,
    key,
    movement,
    write_histories,
    write_named_cases,
    write_payments,
)
from stripe_platform_tests.integration.warehouse_rows_billing import write_billing

# Filled when there are scores.
EMPTY = frozenset({"intermediate.int_fraud_scores", "marts.fraud_loss"})

Rows = Counter[tuple[str, ...]]
MISSING: Rows = Counter([("the model is not there",)])
Query = Callable[[str], list[tuple[Any, ...]]]

VALUES: Mapping[pa.DataType, Callable[[str, int], Any]] = {
    pa.string(): lambda name, number: "eur" if name == "currency" else key(number) if "id" in name else name,
    pa.int64(): lambda name, number: number,
    pa.int32(): lambda name, number: number,
    pa.int16(): lambda name, number: number,
    pa.bool_(): lambda name, number: True,
    pa.date32(): lambda name, number: date(2026, 1, 31),
    pa.timestamp("us", tz="UTC"): lambda name, number: datetime(2026, 1, 31, 12, tzinfo=UTC),
    pa.decimal128(20, 10): lambda name, number: Decimal("1.5"),
}


class Answers(NamedTuple):
    """{model: its rows as text, with how many of each} of both engines."""

    duckdb: dict[str, Rows]
    snowflake: dict[str, Rows]

    def differences(self) -> dict[str, list[tuple[str, ...]]]:
        """{model: rows that one engine has and the other has not}; empty when all are the same."""
        models = self.duckdb.keys() | self.snowflake.keys()
        found = {
            model: [*(one - other), *(other - one)]
            for model in sorted(models)
            for one, other in [(self.duckdb.get(model, MISSING), self.snowflake.get(model, MISSING))]
        }
        return {model: rows for model, rows in found.items() if rows}


class Engines:
    """One change log, built on both engines."""

    def __init__(self, home: Path, snowflake: Settings) -> None:
        self.snowflake = snowflake
        self.duckdb = Settings(stripe_platform_home=home)
        self.lake = Lake(home)

    def build(self, *arguments: str) -> Cut:
        """What dbt is told to build, on both engines, at a cut of everything written."""
        cut = self.lake.cut()
        for settings in (self.duckdb, self.snowflake):
            with builder(settings):
                prepared = engine_of(settings).prepare_build(settings, cut)
                assert dbt(settings, "build", *arguments) == 0, settings.warehouse
                engine_of(settings).mark_tested(settings, prepared)
        return cut

    def answers(self) -> Answers:
        with duckdb.connect(str(build_path(self.duckdb)), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            on_duckdb = read_models(lambda sql: connection.execute(sql).fetchall(), "marts")
        with connected(self.snowflake, self.snowflake.snowflake_role) as session:
            on_snowflake = read_models(lambda sql: run(session, "read", sql), "marts_build")
        return Answers(on_duckdb, on_snowflake)


def dbt(settings: Settings, *arguments: str) -> int:
    target = str(settings.home / f"target-{settings.warehouse}")
    with dbt_environment(settings):
        environment = os.environ | {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target}
        # fakesnow knows no comments on columns.
        environment |= {"WAREHOUSE_PERSIST_DOCS": "false", "WAREHOUSE_THREADS": "1"}
        return subprocess.run(
            [DBT, "--quiet", *arguments], cwd=PROJECT_DIR, env=environment, timeout=240, check=False
        ).returncode


def read_models(query: Query, marts: str) -> dict[str, Rows]:
    """{model: rows} of every table and view that dbt made, each row as sorted `column=value`."""
    layers = {"staging_state": "staging_state", "staging": "staging", "intermediate": "intermediate", marts: "marts"}
    models: dict[tuple[str, str], dict[str, str]] = {}
    for schema, table, column, kind in query(
        "select lower(table_schema), lower(table_name), column_name, data_type from information_schema.columns"
    ):
        # How marts are told of changes is DuckDB's own (dbt/macros/change_feed.sql).
        if schema in layers and not table.startswith("changes_"):
            models.setdefault((schema, table), {})[column] = kind
    return {
        f"{layers[schema]}.{table}": rows_of(query, f"{schema}.{table}", columns)
        for (schema, table), columns in models.items()
    }


def rows_of(query: Query, relation: str, columns: Mapping[str, str]) -> Rows:
    """Every row as text, how often it is there."""
    # Times as the engine's text: fakesnow hands a time that is null over as 1970.
    selected = ", ".join(
        f'cast("{name}" as varchar)' if kind.startswith("TIMESTAMP") else f'"{name}"' for name, kind in columns.items()
    )
    names = [name.lower() for name in columns]
    return Counter(
        tuple(sorted(f"{name}={as_text(value)}" for name, value in zip(names, row, strict=True)))
        for row in query(f"select {selected} from {relation}")
    )


def as_text(value: object) -> str:
    """The same text for the same value, whichever of its number types an engine has it in."""
    match value:
        case bool():
            return str(value)
        case int() | Decimal():
            return f"{Decimal(value).normalize():f}"
        case float():
            return f"{value:.15g}"
        case _:
            return str(value)


def write_every_other_table(lake: Lake) -> None:
    """A row in each captured table that the payments leave empty: its values are of its types, and mean nothing."""
    for table in lake.rows:
        if not any(next_offsets(lake.settings, table).values()):
            write_any(lake, table)


def write_any(lake: Lake, table: str) -> None:
    number = list(lake.rows).index(table)
    lake.write(table, {field.name: VALUES[field.type](field.name, number) for field in lake.rows[table]})


def change_payments(lake: Lake) -> None:
    """What a later build has to be right about: updates, deletes, late rows, values left out and replays."""
    lake.write("charges", charge(CHARGE, 10_000, _op="u", metadata=UNCHANGED, amount_refunded=2_000), partition=0)
    lake.write("charges", charge(key(16), 250, created=BEFORE_MIDNIGHT), partition=2)
    lake.write("charges", charge(CHARGE, 1, _lsn=1), {"_op": "d", "id": YEN_CHARGE, "created": BEFORE_MIDNIGHT})
    lake.write("balance_transactions", movement(11, "charge", 250, 8, source_id=key(16)), partition=2)
    lake.write("balance_transactions", {"_op": "d", "id": key(109), "created": BEFORE_MIDNIGHT}, partition=3)
    lake.write("exchange_rates", {"day": BEFORE_MIDNIGHT.date(), "currency": "jpy", "rate": Decimal("0.0071")})
    lake.write("merchants", {"_op": "u", "id": MERCHANT, "created": EPOCH, "business_name": "a new name"})
    write_any(lake, "reviews")
    lake.write("reviews", {"_op": "t"})
    write_any(lake, "reviews")
    lake.lose("events", 0, 3)
    write_any(lake, "events")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Both engines after a first build of payments and after one of what changed since; published on Snowflake."""
    home = tmp_path_factory.mktemp("engines")
    with account(home) as snowflake:
        set_up(snowflake)
        engines = Engines(home, snowflake)
        write_payments(engines.lake)
        write_billing(engines.lake)
        engines.build("--exclude-resource-type", "unit_test")
        yield engines


# Its fixture makes four builds.
@pytest.mark.timeout(600)
def test_the_models_and_their_tests_pass_on_both_engines_and_the_marts_are_published(engines: Engines) -> None:
    published = engine_of(engines.snowflake).publish(engines.snowflake)
    assert engine_of(engines.snowflake).published_cut(engines.snowflake) == published.cut
    rows = "select charge_id, amount, net from marts.fact_charges"
    publish(engines.duckdb)
    assert sorted(query_rows(engines.snowflake, rows)) == sorted(query_rows(engines.duckdb, rows))


@pytest.mark.timeout(600)
def test_a_failing_test_leaves_the_marts_of_yesterday_on_snowflake(engines: Engines) -> None:
    engine = engine_of(engines.snowflake)
    before = query_rows(engines.snowflake, "select * from marts.daily_revenue order by 1, 2, 3")
    # A ledger row that PostgreSQL's own constraint would refuse.
    wrong = movement(12, "charge", 100, 3) | {"net": 100}
    engines.lake.write("balance_transactions", wrong, partition=2)
    cut = engines.lake.cut()
    for settings in (engines.duckdb, engines.snowflake):
        with builder(settings):
            engine_of(settings).prepare_build(settings, cut)
            assert dbt(settings, "build", "--exclude-resource-type", "unit_test") != 0
    with pytest.raises(NothingTested, match="marts stays"):
        engine.publish(engines.snowflake)
    assert query_rows(engines.snowflake, "select * from marts.daily_revenue order by 1, 2, 3") == before
    engines.lake.write("balance_transactions", wrong | {"_op": "u", "net": 97}, partition=2)


@pytest.mark.timeout(600)
def test_every_row_of_every_model_is_the_same_after_changes_and_a_planted_difference_is_found(
    engines: Engines,
) -> None:
    change_payments(engines.lake)
    write_every_other_table(engines.lake)
    engines.build("--exclude-resource-type", "test", "unit_test")
    answers = engines.answers()
    assert answers.differences() == {}
    assert {model for model, rows in answers.duckdb.items() if not rows} <= EMPTY
    with connected(engines.snowflake, engines.snowflake.snowflake_role) as connection:
        plant = f"update marts_build.fact_charges set amount = amount + 1 where charge_id = '{key(16)}'"
        run(connection, "plant a difference", plant)
    (model,) = engines.answers().differences()
    assert model == "marts.fact_charges"


@pytest.mark.timeout(900)
def test_random_histories_gaps_truncates_and_replays_leave_the_same_state_on_both_engines(tmp_path: Path) -> None:
    with account(tmp_path) as snowflake:
        set_up(snowflake)
        engines = Engines(tmp_path, snowflake)
        histories = [History(seed, snapshot_lsn=5_000) for seed in range(1, 4)]
        for batch in range(3):
            write_named_cases(engines.lake, batch)
            write_histories(engines.lake, histories, batch)
            engines.build("--select", "staging", "--exclude-resource-type", "test")
            assert engines.answers().differences() == {}, f"after build {batch + 1}"
