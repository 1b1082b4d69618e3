"""Every dbt test of the project is seen to fail on the damage that it is there for, and on no other."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import duckdb
import pytest

from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment
from stripe_platform_tests.integration.damage import Damage
from stripe_platform_tests.integration.test_warehouse import (
    CUSTOMER,
    EPOCH,
    Lake,
    build,
    documented_columns,
    key,
    rows_of_build,
    write_payments,
)
from stripe_platform_tests.integration.warehouse_damages import DAMAGES
from stripe_platform_tests.integration.warehouse_rows_billing import write_billing

LEFT_AT = datetime(2026, 2, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Built:
    """A build whose tests have passed, and the SQL of each of them as dbt compiled it, by name."""

    settings: Settings
    tests: dict[str, str]


def results_of_tests(settings: Settings) -> dict[str, tuple[str, str]]:
    """{name of the dbt test: (status, compiled SQL)} of dbt's last invocation."""
    results = json.loads((settings.home / "target/run_results.json").read_text())["results"]
    return {
        result["unique_id"].split(".")[2]: (result["status"], result["compiled_code"])
        for result in results
        if result["unique_id"].startswith("test.")
    }


def write_a_row_of_every_other_table(lake: Lake) -> None:
    for table in CAPTURED_TABLES:
        if not any(next_offsets(lake.settings, table.name).values()):
            kinds = documented_columns(table.name)
            lake.write(table.name, {name: key(1) if kinds[name] == "varchar" else EPOCH for name in table.key})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One build of payments, on which every test passes."""
    lake = Lake(tmp_path_factory.mktemp("checked"))
    write_payments(lake)
    write_billing(lake)
    write_a_row_of_every_other_table(lake)
    lake.write("customers", {"_op": "u", "id": CUSTOMER, "country": "FR", "balance": 0, "deleted_at": LEFT_AT})
    build(lake.settings, lake.cut())
    results = results_of_tests(lake.settings)
    assert {status for status, _ in results.values()} == {"pass"}
    return Built(lake.settings, {name: sql for name, (_, sql) in results.items()})


def test_a_customer_who_left_stays_in_staging_and_in_the_marts_and_is_marked(built: Built) -> None:
    staged = f"select deleted_at from staging.stg_customers where customer_id = '{CUSTOMER}'"
    mart = f"select deleted_at, is_deleted from marts.dim_customers where customer_id = '{CUSTOMER}' and is_current"
    assert rows_of_build(built.settings, staged) == [(LEFT_AT,)]
    assert rows_of_build(built.settings, mart) == [(LEFT_AT, True)]


def expected(damage: Damage, built: Built) -> set[str]:
    """The names that the damage's patterns stand for; a pattern that stands for none is out of date."""
    names = {pattern: {name for name in built.tests if fnmatchcase(name, pattern)} for pattern in damage.fails}
    assert all(names.values()), names
    return set().union(*names.values())


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.what)
def test_a_damage_fails_the_dbt_tests_that_are_there_for_it_and_no_other(built: Built, damage: Damage) -> None:
    with duckdb.connect(str(build_path(built.settings))) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.begin()
        assert connection.execute(damage.sql).fetchall() != [(0,)]
        failed = {name for name, sql in built.tests.items() if connection.execute(sql).fetchall()}
        connection.rollback()
    assert failed == expected(damage, built)


def test_every_dbt_test_is_shown_failing(built: Built) -> None:
    assert set().union(*(expected(damage, built) for damage in DAMAGES)) == set(built.tests)


def test_dbt_counts_every_one_of_them_as_a_failure_that_stops_the_publication(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.settings.home, tmp_path / "home")
    settings = Settings(stripe_platform_home=tmp_path / "home")
    with duckdb.connect(str(build_path(settings))) as connection:
        for damage in DAMAGES:
            connection.execute(damage.sql)
    target = str(settings.home / "target")
    with dbt_environment(settings):
        environment = os.environ | {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target}
        run = subprocess.run([DBT, "--quiet", "test"], cwd=PROJECT_DIR, env=environment, timeout=120, check=False)
    assert run.returncode != 0
    assert {name for name, (status, _) in results_of_tests(settings).items() if status == "fail"} == set(built.tests)
