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
from stripe_platform.warehouse.project import DBT, PROJECT_DIR, dbt_environment
from stripe_platform.warehouse.staging import staging_model
from stripe_platform_tests.integration.test_warehouse import (
    CHARGE,
    CUSTOMER,
    EPOCH,
    Lake,
    build,
    documented_columns,
    key,
    rows_of_build,
    write_payments,
)

PAYOUT, FEE = key(108), key(107)
LEFT_AT = datetime(2026, 2, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Damage:
    """What is wrong, the SQL that makes it so, and patterns of the names of the tests that must then fail."""

    what: str
    sql: str
    fails: tuple[str, ...]


def null_row(relation: str, *others: str) -> Damage:
    table = relation.split(".")[1]
    return Damage(
        f"a row without values in {table}",
        f"insert into {relation} default values",
        (f"not_null_{table}_*", *others),
    )


def doubled(relation: str, condition: str, *fails: str) -> Damage:
    return Damage(
        f"a row of {relation.split('.')[1]} twice",
        f"insert into {relation} select * from {relation} where {condition} limit 1",
        fails,
    )


def fact(kind: str, column: str, value: str, *fails: str) -> Damage:
    where = f"charge_id = '{CHARGE}'" if kind == "charges" else f"transaction_id = '{PAYOUT}'"
    return Damage(
        f"{column} of a row of fact_{kind} is {value}",
        f"update marts.fact_{kind} set {column} = {value} where {where}",
        fails,
    )


def orphan(table: str, column: str) -> Damage:
    return Damage(
        f"{column} of {table} names no row",
        f"update staging_state.state_{table} set {column} = 'nobody'",
        (f"relationships_at_cut_{staging_model(table)}_{column}_*",),
    )


def staging_damages() -> list[Damage]:
    # The marts hold the rows of these two as they were built.
    compared = {"charges": ("charge_money_is_conserved",), "balance_transactions": ("ledger_money_is_conserved",)}
    damages = []
    for table in CAPTURED_TABLES:
        model, state = staging_model(table.name), f"staging_state.state_{table.name}"
        others = compared.get(table.name, ())
        damages += [
            Damage(
                f"a row without values in {model}",
                f"insert into {state} (_deleted) values (false)",
                (f"not_null_{model}_*", *others),
            ),
            # `unique`, or `unique_together` where the key has two columns.
            doubled(state, "true", f"unique*_{model}_*", *others),
        ]
    return [
        *damages,
        orphan("charges", "payment_intent_id"),
        orphan("balance_transactions", "payout_id"),
        orphan("invoice_lines", "invoice_id"),
    ]


LEDGER, CHARGES, REVENUE = "ledger_money_is_conserved", "charge_money_is_conserved", "daily_revenue_is_the_ledger"
MARTS_DAMAGES = [
    null_row("marts.fact_transactions", "fact_transactions_net_is_amount_less_fee", LEDGER),
    doubled("marts.fact_transactions", f"transaction_id = '{PAYOUT}'", "unique_fact_transactions_*", LEDGER),
    fact("transactions", "merchant_id", "'nobody'", "relationships_at_cut_fact_transactions_merchant_id_*"),
    fact("transactions", "currency", "'xxx'", "relationships_at_cut_fact_transactions_currency_*", LEDGER),
    fact("transactions", "reporting_category", "'new'", "accepted_values_fact_transactions_reporting_category_*"),
    fact("transactions", "status", "'new'", "accepted_values_fact_transactions_status_*"),
    fact("transactions", "net", "net + 1", "fact_transactions_net_is_amount_less_fee", LEDGER),
    Damage(
        "a movement of revenue is larger than in the ledger",
        f"update marts.fact_transactions set amount = amount + 1, net = net + 1 where transaction_id = '{FEE}'",
        (LEDGER, REVENUE),
    ),
    null_row("marts.fact_charges", "fact_charges_amounts_are_in_order", CHARGES),
    doubled("marts.fact_charges", "settlement_currency is null", "unique_fact_charges_*", CHARGES),
    fact("charges", "merchant_id", "'nobody'", "relationships_at_cut_fact_charges_merchant_id_*"),
    fact("charges", "customer_id", "'nobody'", "relationships_at_cut_fact_charges_customer_id_*"),
    fact("charges", "payment_method_id", "'none'", "relationships_at_cut_fact_charges_payment_method_id_*"),
    fact("charges", "currency", "'xxx'", "relationships_at_cut_fact_charges_currency_*", CHARGES),
    fact("charges", "status", "'new'", "accepted_values_fact_charges_status_*", CHARGES),
    fact("charges", "amount_refunded", "amount + 1", "fact_charges_amounts_are_in_order", CHARGES),
    fact("charges", "net", "net + 1", "charge_net_is_in_the_ledger"),
    null_row("marts.dim_merchants"),
    doubled("marts.dim_merchants", "true", "unique_dim_merchants_*"),
    null_row("marts.dim_customers"),
    doubled("marts.dim_customers", "true", "unique_dim_customers_*"),
    Damage(
        "a customer of no merchant, committed before the cut was made",
        "insert into marts.dim_customers (customer_id, merchant_id, committed_at) "
        "select 'early', 'nobody', made_at - interval 1 microsecond from meta.build",
        ("relationships_at_cut_dim_customers_merchant_id_*",),
    ),
    Damage(
        "no damage: a customer whose merchant is beyond the cut, committed after the cut was made",
        "insert into marts.dim_customers (customer_id, merchant_id, committed_at) "
        "select 'late', 'beyond the cut', made_at from meta.build",
        (),
    ),
    null_row("marts.dim_date", "date_spine_is_complete"),
    doubled("marts.dim_date", "true", "unique_dim_date_*", "date_spine_is_complete"),
    Damage("a day is missing", "delete from marts.dim_date where day = '2026-01-15'", ("date_spine_is_complete",)),
    Damage(
        "revenue on a day that is no day",
        "delete from marts.dim_date where day = '2026-02-01'",
        ("relationships_daily_revenue_day_*",),
    ),
    null_row("marts.daily_revenue", "daily_revenue_net_is_gross_less_refunds_disputes_and_fees", REVENUE),
    doubled("marts.daily_revenue", "true", "daily_revenue_has_one_row_per_day_merchant_and_currency", REVENUE),
    Damage(
        "gross that is not in net",
        "update marts.daily_revenue set gross = gross + 1",
        ("daily_revenue_net_is_gross_less_refunds_disputes_and_fees",),
    ),
    Damage(
        "revenue that is not in the ledger",
        "update marts.daily_revenue set gross = gross + 1, net = net + 1",
        (REVENUE,),
    ),
]
DAMAGES = [*staging_damages(), *MARTS_DAMAGES]


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
    write_a_row_of_every_other_table(lake)
    lake.write("customers", {"_op": "u", "id": CUSTOMER, "country": "FR", "balance": 0, "deleted_at": LEFT_AT})
    build(lake.settings, lake.cut())
    results = results_of_tests(lake.settings)
    assert {status for status, _ in results.values()} == {"pass"}
    return Built(lake.settings, {name: sql for name, (_, sql) in results.items()})


def test_a_customer_who_left_stays_in_staging_and_in_the_marts_and_is_marked(built: Built) -> None:
    staged = f"select deleted_at from staging.stg_customers where customer_id = '{CUSTOMER}'"
    mart = f"select deleted_at, is_deleted from marts.dim_customers where customer_id = '{CUSTOMER}'"
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
