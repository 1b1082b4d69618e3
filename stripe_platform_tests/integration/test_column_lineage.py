"""From a mart's column back to the change log, by the SQL of a real build."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlglot import MappingSchema
from sqlglot.errors import SqlglotError

from stripe_platform.settings import Settings
from stripe_platform.warehouse import column_lineage
from stripe_platform.warehouse.column_lineage import Lineage, lineage_of_run
from stripe_platform_tests.integration.test_warehouse import Lake, build, write_payments
from stripe_platform_tests.integration.test_warehouse_checks import write_a_row_of_every_other_table

# Counts of rows, and what networks demand: no column goes into them.
MADE_OF_NONE = {
    "authorization_rates": {"attempted"},
    "card_network_limits": {"card_brand", "program", "ratio", "events"},
    "customer_cohorts": {"customers", "retained", "retention"},
    "customer_rfm": {"frequency"},
    "decline_codes": {"declined"},
    "dispute_rates": {
        "successful_charges",
        "charges_of_month_before",
        "disputes",
        "disputes_of_charges",
        "fraud_warnings",
        "dispute_rate",
        "dispute_rate_of_charges",
    },
    "dispute_reasons": {"disputes"},
    "fraud_loss": {"charges"},
    "merchant_gmv": {"charges"},
    "payout_reconciliation": {"movements"},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a stack that has built its models twice: the second time it read only what was new."""
    lake = Lake(tmp_path_factory.mktemp("traced"))
    write_payments(lake)
    write_a_row_of_every_other_table(lake)
    build(lake.settings, lake.cut(), "--resource-type", "model")
    build(lake.settings, lake.cut(), "--resource-type", "model")
    return lake.settings


@pytest.fixture(scope="module")
def manifest(settings: Settings) -> Mapping[str, Any]:
    manifest: Mapping[str, Any] = json.loads((settings.home / "target/manifest.json").read_text())
    return manifest


@pytest.fixture(scope="module")
def lineages(settings: Settings, manifest: Mapping[str, Any]) -> dict[str, Lineage]:
    return lineage_of_run(settings, manifest, settings.home / "target")


def origins(lineages: dict[str, Lineage], model: str, column: str) -> set[str]:
    """Every `node.column` above a column, however far."""
    found: set[str] = set()
    for unique_id, name in lineages.get(f"model.stripe_platform.{model}", {}).get(column, []):
        parent = unique_id.split(".")[-1]
        found |= {f"{parent}.{name}"}
        if unique_id.startswith("model."):
            found |= origins(lineages, parent, name)
    return found


def test_the_fee_of_a_charge_comes_from_the_ledger_in_staging_and_from_nothing_else(
    lineages: dict[str, Lineage],
) -> None:
    assert origins(lineages, "fact_charges", "fee") == {
        "fact_transactions.fee",
        "stg_transactions.fee",
        "state_balance_transactions.fee",
        "balance_transactions.fee",
    }


def test_a_column_that_is_chosen_by_others_comes_from_them_too(lineages: dict[str, Lineage]) -> None:
    assert lineages["model.stripe_platform.daily_revenue"]["gross"] == [
        ("model.stripe_platform.fact_transactions", "amount"),
        ("model.stripe_platform.fact_transactions", "reporting_category"),
    ]


def test_which_rows_are_computed_again_says_nothing_of_where_a_value_comes_from(lineages: dict[str, Lineage]) -> None:
    assert lineages["model.stripe_platform.fact_refunds"]["refund_id"] == [
        ("model.stripe_platform.stg_refunds", "refund_id")
    ]
    assert ("source.stripe_platform.raw.charges", "amount") in lineages["model.stripe_platform.state_charges"]["amount"]


def test_every_column_of_every_mart_comes_from_others_or_counts_rows(
    lineages: dict[str, Lineage], manifest: Mapping[str, Any]
) -> None:
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    assert {node["unique_id"] for node in models} == set(lineages)
    marts = {node["name"]: node for node in models if node["fqn"][1] == "marts"}
    for name, node in marts.items():
        made_of = lineages[node["unique_id"]]
        assert set(node["columns"]) <= set(made_of), name
        assert {column for column in node["columns"] if not made_of[column]} == MADE_OF_NONE.get(name, set()), name
    assert set(MADE_OF_NONE) <= set(marts)


def test_it_is_found_once_until_a_column_or_the_project_changes(
    settings: Settings, manifest: Mapping[str, Any], lineages: dict[str, Lineage], monkeypatch: pytest.MonkeyPatch
) -> None:
    analysed: list[str] = []

    def nothing(sql: str, *_: object) -> dict[str, set[tuple[str, str, str]]]:
        analysed.append(sql)
        return {}

    monkeypatch.setattr(column_lineage, "columns_read", nothing)
    assert lineage_of_run(settings, manifest, settings.home / "target") == lineages
    assert analysed == []
    monkeypatch.setattr(column_lineage, "digest_of_models", lambda: "another project")
    lineage_of_run(settings, manifest, settings.home / "target")
    assert len(analysed) == len(lineages)


def test_a_model_whose_sql_is_not_understood_is_left_out_and_the_others_are_not(
    settings: Settings, manifest: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_lineage, "digest_of_models", lambda: "a project with a mistake")
    shutil.copytree(settings.home / "target/compiled", tmp_path / "compiled")
    (path,) = tmp_path.rglob("daily_revenue.sql")
    path.write_text("select (")
    with pytest.raises(SqlglotError):
        column_lineage.columns_read("select (", MappingSchema(), "duckdb")
    found = lineage_of_run(settings, manifest, tmp_path)
    assert "model.stripe_platform.daily_revenue" not in found
    assert "model.stripe_platform.fact_charges" in found
