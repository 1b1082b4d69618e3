"""Each metric, asked by MetricFlow's own command, is what plain SQL on the mart says."""

import csv
import math
import os
import subprocess
from pathlib import Path

import pytest

from stripe_platform.local.environment import environment
from stripe_platform.settings import Settings
from stripe_platform.warehouse import metrics
from stripe_platform.warehouse.build import publish
from stripe_platform.warehouse.metrics import NoMetricFlow, run_mf
from stripe_platform.warehouse.project import DBT
from stripe_platform.warehouse.query import query_rows
from stripe_platform_tests.integration.test_warehouse import Lake, build, write_payments
from stripe_platform_tests.integration.test_warehouse_checks import write_a_row_of_every_other_table
from stripe_platform_tests.integration.warehouse_rows_billing import write_billing

BY_MONTH = {
    "gross": "select date_trunc('month', day), merchant_id, sum(gross_reporting) from marts.daily_revenue",
    "net": "select date_trunc('month', day), merchant_id, sum(net_reporting) from marts.daily_revenue",
    "authorization_rate": "select date_trunc('month', day), merchant_id, "
    "sum(authorized) / nullif(sum(sent_to_network), 0) from marts.authorization_rates",
    "dispute_rate": "select month, merchant_id, sum(disputes) / nullif(sum(successful_charges), 0) "
    "from marts.dispute_rates",
    "gmv": "select month, merchant_id, sum(gmv_reporting) from marts.merchant_gmv",
    "mrr": "select month, merchant_id, sum(mrr_reporting) from marts.mrr",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a stack that has published payments, disputes and subscriptions."""
    lake = Lake(tmp_path_factory.mktemp("measured"))
    write_payments(lake)
    write_billing(lake)
    write_a_row_of_every_other_table(lake)
    build(lake.settings, lake.cut(), "--resource-type", "model")
    publish(lake.settings)
    return lake.settings


def asked(settings: Settings, file: Path, *arguments: str) -> list[dict[str, str]]:
    subprocess.run(
        [DBT.with_name("stripe-platform"), "mf", "query", "--csv", file, *arguments],
        env=os.environ | environment(settings),
        check=True,
    )
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_every_metric_by_month_and_merchant_is_what_its_mart_says(published: Settings, tmp_path: Path) -> None:
    grouping = ("--metrics", ",".join(BY_MONTH), "--group-by", "metric_time__month,merchant")
    rows = asked(published, tmp_path / "metrics.csv", *grouping)
    for metric, query in BY_MONTH.items():
        told = {
            (row["metric_time__month"][:10], row["merchant"]): float(row[metric])
            for row in rows
            if row[metric] and row["merchant"]
        }
        expected = {
            (str(month)[:10], merchant): float(value)
            for month, merchant, value in query_rows(published, f"{query} where merchant_id is not null group by all")
            if value is not None
        }
        assert any(expected.values()), metric
        assert told.keys() == expected.keys(), metric
        assert all(math.isclose(told[place], value) for place, value in expected.items()), metric


def test_mrr_of_a_quarter_is_that_of_its_last_month_and_not_the_sum(published: Settings, tmp_path: Path) -> None:
    rows = asked(published, tmp_path / "mrr.csv", "--metrics", "mrr", "--group-by", "metric_time__quarter")
    months = query_rows(published, "select month, sum(mrr_reporting) from marts.mrr group by month order by month")
    ends = {f"{month.year}-{3 * ((month.month - 1) // 3) + 1:02}-01": value for month, value in months}
    assert {row["metric_time__quarter"][:10]: int(row["mrr"]) for row in rows} == ends
    assert len(months) > len(ends)


def test_without_metricflow_the_error_says_how_to_install_it(
    published: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MF", tmp_path / "mf")
    with pytest.raises(NoMetricFlow, match="uv sync"):
        run_mf(published, ["list", "metrics"])
