"""dbt fails on a value without a word of it: neither to whom it speaks nor in its logs."""

import os
import subprocess
from pathlib import Path

import pytest

from stripe_platform.warehouse.build import prepare_build
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment
from stripe_platform_tests.integration.test_warehouse import Lake, charge, key, write_payments

AMOUNT = 6_123_456_789_123_456_789


def said_by_dbt(lake: Lake, *arguments: str) -> str:
    """What a failing dbt wrote, to the terminal and into its files of logs."""
    target = lake.settings.home / "target"
    with builder(lake.settings), dbt_environment(lake.settings):
        prepare_build(lake.settings, lake.cut())
        run = subprocess.run(
            [DBT, "--no-use-colors", "--debug", "run", *arguments],
            cwd=PROJECT_DIR,
            env=os.environ | {"DBT_TARGET_PATH": str(target), "DBT_LOG_PATH": str(target)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert run.returncode == 1
    logs = [file.read_text() for file in target.glob("*.log")]
    assert logs
    return "\n".join([run.stdout, run.stderr, *logs, (target / "run_results.json").read_text()])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    write_payments(lake)
    return lake


def test_a_sum_that_no_column_holds_is_told_by_its_model_and_kind_and_without_the_value(lake: Lake) -> None:
    lake.write("charges", charge(key(90), AMOUNT), charge(key(91), AMOUNT), partition=1)
    said = said_by_dbt(lake, "--select", "+merchant_gmv")
    assert "Runtime Error in model merchant_gmv (models/marts/merchant_gmv.sql)" in said
    assert "ConversionException: the database's own words are left out" in said
    for value in (AMOUNT, 2 * AMOUNT):
        assert str(value)[:12] not in said


def test_what_is_wrong_with_the_sql_is_told_in_full(lake: Lake) -> None:
    said = said_by_dbt(lake, "--select", "+merchant_gmv", "--exclude", "int_succeeded_charges")
    assert "Table with name int_succeeded_charges does not exist" in said
