"""Payments from a file to the marts, on a stack of their own, through the command line."""

import io
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import environ
from pathlib import Path
from threading import Event
from typing import Any, get_args

import polars as pl
import pytest

from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.local.environment import environment
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.buffer import Point
from stripe_platform.raw.change_log import row_count
from stripe_platform.settings import Settings
from stripe_platform.warehouse.published import published_path
from stripe_platform.warehouse.query import query_csv

CHARGES = "select count(*) as count, sum(amount) as amount from marts.fact_charges"
REVENUE = "select sum(gross) as gross, sum(disputes) as disputes from marts.daily_revenue"

# Drains like a run does, but ends itself by SIGKILL the n-th time it passes one of the points between two steps.
KILLED_DRAIN = """
import os, signal, sys
from stripe_platform.raw.drain import drain
from stripe_platform.settings import load_settings

left = int(sys.argv[2])

def at(point):
    global left
    if point == sys.argv[1]:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

drain(load_settings(), at=at)
"""


@pytest.fixture(scope="module")
def spine(new_platform: Callable[[], Settings], command_line: Any) -> Any:
    return command_line(new_platform())


@pytest.fixture(scope="module")
def imported(spine: Any, payments_file: Path) -> pl.DataFrame:
    spine("import-payments", str(payments_file))
    _drain_with_five_kills(spine.settings)
    spine("run", "oltp_to_warehouse")
    return pl.read_parquet(payments_file)


def _drain_with_five_kills(settings: Settings) -> None:
    chance = random.Random()  # noqa: S311 - every run of the tests tries other moments; a failure names them
    *during, at_the_end = get_args(Point)
    for point in [*chance.sample(during, len(during)), at_the_end]:
        passes = chance.randint(1, 3) if point != at_the_end else 1
        drain = subprocess.run(
            [sys.executable, "-c", KILLED_DRAIN, point, str(passes)],
            env={**environ, **environment(settings)},
            timeout=120,
            check=False,
        )
        assert drain.returncode == -signal.SIGKILL, f"the drain was not killed at {point}, pass {passes}"


def test_the_marts_hold_the_files_count_and_amounts_after_five_kills_of_the_drain(
    spine: Any, imported: pl.DataFrame
) -> None:
    assert spine.rows(CHARGES) == [{"count": str(len(imported)), "amount": str(imported["amount"].sum())}]
    disputed = imported.filter(pl.col("fraud_reported_at").is_not_null())["amount"].sum()
    assert spine.rows(REVENUE) == [{"gross": str(imported["amount"].sum()), "disputes": str(disputed)}]


def test_each_day_of_revenue_is_the_files_day_to_the_cent(spine: Any, imported: pl.DataFrame) -> None:
    of_file = imported.group_by(pl.col("occurred_at").dt.date().alias("day"), "currency").agg(pl.col("amount").sum())
    of_marts = spine.rows(
        "select day, currency, sum(gross) as gross from marts.daily_revenue group by all having sum(gross) <> 0"
    )
    assert {(row["day"], row["currency"]): int(row["gross"]) for row in of_marts} == {
        (str(day), currency): amount for day, currency, amount in of_file.rows()
    }


def test_importing_and_building_again_changes_nothing(spine: Any, imported: pl.DataFrame, payments_file: Path) -> None:
    before = spine.rows(CHARGES), spine.rows(REVENUE), row_count(spine.settings, "charges")
    offsets = last_stable_offsets(spine.settings, TABLES_BY_NAME)
    assert "0 imported, 20,000 already there" in spine("import-payments", str(payments_file))
    spine("run", "oltp_to_warehouse")
    assert last_stable_offsets(spine.settings, TABLES_BY_NAME) == offsets
    assert (spine.rows(CHARGES), spine.rows(REVENUE), row_count(spine.settings, "charges")) == before


def test_a_run_that_was_killed_while_dbt_built_holds_up_nobody(spine: Any, imported: pl.DataFrame) -> None:
    before = spine.rows(CHARGES)
    with spine.start("run", "oltp_to_warehouse") as killed:
        assert any("Running dbt command" in line for line in killed.stderr)
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    spine("run", "oltp_to_warehouse")
    assert spine.rows(CHARGES) == before


def test_readers_in_a_loop_during_a_build_see_a_whole_build_or_the_next(spine: Any, imported: pl.DataFrame) -> None:
    total = int(spine.rows(CHARGES)[0]["count"])
    spine("psql", _charge_by_hand("merchants", 1))
    build = spine.start("run", "oltp_to_warehouse")
    seen: list[tuple[int, int]] = []
    done = Event()

    def read() -> None:
        # In this process: a command each time would take the build's cores for a minute.
        while not done.wait(0.05):
            out = io.StringIO()
            query_csv(
                spine.settings,
                "select (select count(*) from marts.fact_charges), (select count(*) from staging.stg_charges)",
                out,
            )
            charges, staged = out.getvalue().splitlines()[1].split(",")
            seen.append((int(charges), int(staged)))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            _, error = build.communicate(timeout=180)
        finally:
            done.set()
        reader.result()
    assert build.returncode == 0, error[-4000:]
    assert len(seen) > 1
    assert set(seen) <= {(total, total), (total + 1, total + 1)}
    assert spine.rows(CHARGES)[0]["count"] == str(total + 1)


def test_a_failing_blocking_test_leaves_yesterdays_marts(spine: Any, imported: pl.DataFrame) -> None:
    """A ledger row that the database took in while its own rule was off fails dbt's test of the same rule."""
    yesterday = published_path(spine.settings).read_bytes()
    rule = "ALTER TABLE balance_transactions {} CONSTRAINT net_is_amount_less_fee"
    spine("psql", rule.format("DROP"))
    spine("psql", _broken_ledger_row())
    build = spine.start("run", "oltp_to_warehouse")
    build.communicate(timeout=180)
    assert build.returncode == 1
    assert published_path(spine.settings).read_bytes() == yesterday

    spine("psql", "DELETE FROM balance_transactions WHERE description = 'broken on purpose'")
    spine("psql", rule.format("ADD") + " CHECK (net = amount - fee)")
    spine("run", "oltp_to_warehouse")
    assert published_path(spine.settings).read_bytes() != yesterday


def test_wrong_commands_end_with_an_error_that_says_what_to_do(spine: Any) -> None:
    for arguments, words in (
        (("run", "no_such_job"), "there is no job 'no_such_job': the jobs are"),
        (("sql", "--csv", "select no_such_column from marts.fact_charges"), "no_such_column"),
        (("psql", "select * from no_such_table"), 'relation "no_such_table" does not exist'),
        (("import-payments", "no_such_file.parquet"), "no_such_file.parquet"),
    ):
        process = spine.start(*arguments)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 1, arguments
        assert out == ""
        # The servers' own words may go on below, with the place in the statement.
        assert [line for line in error.splitlines() if line.startswith("error: ")]
        assert words in error
        assert "Traceback" not in error


def _charge_by_hand(merchants: str, count: int) -> str:
    return (
        "INSERT INTO charges (merchant_id, amount, amount_captured, currency, status, captured, paid) "
        f"SELECT id, 100, 100, 'eur', 'succeeded', true, true FROM {merchants} LIMIT {count}"
    )


def _broken_ledger_row() -> str:
    return (
        "INSERT INTO balance_transactions "
        "(merchant_id, amount, fee, net, currency, type, reporting_category, status, available_on, "
        "description) "
        "SELECT id, 100, 10, 100, 'eur', 'charge', 'charge', 'pending', now(), 'broken on purpose' "
        "FROM merchants LIMIT 1"
    )
