"""`dbt source freshness` on a published warehouse, as people run it."""

import json
import os
import subprocess

import duckdb
import pytest

from stripe_platform.local.environment import environment
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path, mark_tested, prepare_build, publish
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.project import DBT
from stripe_platform.warehouse.published_dbt import target_folder
from stripe_platform_tests.integration.test_warehouse import Lake, write_payments
from stripe_platform_tests.integration.test_warehouse_checks import write_a_row_of_every_other_table

# The other tables may lie still for a year.
EVERY_PAYMENT = {"charges", "charge_outcomes", "balance_transactions", "fee_details"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Payments that were loaded a moment ago, prepared for a build."""
    lake = Lake(tmp_path_factory.mktemp("fresh"))
    write_payments(lake)
    write_a_row_of_every_other_table(lake)
    with builder(lake.settings):
        mark_tested(lake.settings, prepare_build(lake.settings, lake.cut()))
    with duckdb.connect(str(build_path(lake.settings))) as connection:
        for table in CAPTURED_TABLES:
            connection.execute(f"alter view raw.{table.name} rename to {table.name}_now")
    return lake


def freshness(settings: Settings, age: str) -> tuple[int, dict[str, str]]:
    """Exit code, and {table: status}, when everything was loaded `age` ago."""
    with duckdb.connect(str(build_path(settings))) as connection:
        for table in CAPTURED_TABLES:
            connection.execute(
                f"create or replace view raw.{table.name} as "
                f"select * replace (_loaded_at - interval '{age}' as _loaded_at) from raw.{table.name}_now"
            )
    publish(settings)
    run = subprocess.run(
        [DBT.with_name("stripe-platform"), "dbt", "--quiet", "source", "freshness"],
        env=os.environ | environment(settings),
        check=False,
    )
    results = json.loads((target_folder(settings) / "sources.json").read_text())["results"]
    return run.returncode, {result["unique_id"].split(".")[-1]: result["status"] for result in results}


@pytest.mark.parametrize(
    ("age", "exit_code", "status"),
    [("0 hours", 0, "pass"), ("13 hours", 0, "warn"), ("25 hours", 1, "error")],
    ids=["a moment ago", "half a day ago", "a day ago"],
)
def test_the_tables_that_every_payment_writes_to_are_as_fresh_as_their_last_change(
    lake: Lake, age: str, exit_code: int, status: str
) -> None:
    assert freshness(lake.settings, age) == (exit_code, dict.fromkeys(EVERY_PAYMENT, status))
