"""The assets of the warehouse with WAREHOUSE=snowflake, in a process of its own: they are made as they are loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stripe_platform.cdc.cut_store import save_cut
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform.warehouse.query import query_rows
from stripe_platform.warehouse.snowflake.connection import profile_variables
from stripe_platform_tests.integration.snowflake_account import account, set_up
from stripe_platform_tests.integration.test_warehouse import Lake, write_payments
from stripe_platform_tests.integration.warehouse_rows_billing import write_billing

MATERIALIZE = """
import json
import dagster as dg
from stripe_platform.resources import resources_for
from stripe_platform.settings import load_settings
from stripe_platform.warehouse import assets
from stripe_platform.warehouse.checks import published_marts_match_their_cut

result = dg.materialize(
    [assets.warehouse_models, assets.published_marts, published_marts_match_their_cut],
    resources=resources_for(load_settings()),
    raise_on_error=False,
)
told = {
    event.asset_key.to_user_string(): {
        "rows": metadata["dagster/row_count"].value if "dagster/row_count" in metadata else None,
        "lineage": len(metadata["dagster/column_lineage"].value.deps_by_column)
        if "dagster/column_lineage" in metadata
        else None,
    }
    for event in result.get_asset_materialization_events()
    for metadata in [event.materialization.metadata]
}
checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
print("RESULT" + json.dumps({"success": result.success, "told": told, "checks": checks}))
"""


def environment(settings: Settings) -> dict[str, str]:
    return (
        os.environ
        | profile_variables(settings)
        | {
            "WAREHOUSE": "snowflake",
            "WAREHOUSE_PERSIST_DOCS": "false",
            "WAREHOUSE_THREADS": "1",
            "STRIPE_PLATFORM_HOME": str(settings.home),
            "SNOWFLAKE_URL": str(settings.snowflake_url),
            "SNOWFLAKE_IS_GOVERNED": "false",
        }
    )


@pytest.mark.timeout(600)
def test_a_run_builds_tests_and_publishes_the_marts_with_counts_and_lineage(tmp_path: Path) -> None:
    with account(tmp_path) as settings:
        set_up(settings)
        lake = Lake(tmp_path)
        write_payments(lake)
        write_billing(lake)
        save_cut(settings, "an-earlier-run", lake.cut())
        run = subprocess.run(
            [sys.executable, "-c", MATERIALIZE],
            cwd=PROJECT_ROOT,
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        (line,) = [line for line in run.stdout.splitlines() if line.startswith("RESULT")] or [run.stderr[-4000:]]
        result = json.loads(line.removeprefix("RESULT"))
        assert result["success"], run.stderr[-4000:]
        assert result["checks"].pop("published_marts_match_their_cut")
        assert all(result["checks"].values())
        assert result["told"]["marts/fact_charges"]["rows"] == 5
        assert result["told"]["marts/fact_charges"]["lineage"] > 10
        assert query_rows(settings, "select count(*) from marts.fact_charges") == [(5,)]
