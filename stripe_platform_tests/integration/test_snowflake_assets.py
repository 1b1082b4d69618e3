"""The assets of the warehouse with WAREHOUSE=snowflake, in a process of their own: the engine is read at import."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stripe_platform.cdc.cut_store import save_cut
from stripe_platform.local.environment import environment
from stripe_platform.settings import Settings
from stripe_platform.warehouse.engines import published_cut
from stripe_platform_tests.integration.snowflake_account import account, set_up
from stripe_platform_tests.integration.test_warehouse import Lake, write_payments

MATERIALIZE = """
import json
import dagster as dg
from stripe_platform.resources import resources_for
from stripe_platform.settings import load_settings
from stripe_platform.warehouse.assets import published_marts, warehouse_models
from stripe_platform.warehouse.checks import published_marts_match_their_cut

run = dg.materialize(
    [warehouse_models, published_marts, published_marts_match_their_cut], resources=resources_for(load_settings())
)
found = {}
for event in run.get_asset_materialization_events():
    metadata = event.materialization.metadata
    lineage = metadata.get("dagster/column_lineage")
    found[event.asset_key.to_user_string()] = {
        "rows": metadata["dagster/row_count"].value if "dagster/row_count" in metadata else None,
        "lineage": {
            column: [f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps]
            for column, deps in (lineage.value.deps_by_column if lineage else {}).items()
        },
    }
checks = {check.check_name: check.passed for check in run.get_asset_check_evaluations()}
print(json.dumps({"assets": found, "failed": [name for name, passed in checks.items() if not passed]}))
"""


def materialize(settings: Settings) -> dict[str, Any]:
    """What a run of all models and their publication tells."""
    run = subprocess.run(
        [sys.executable, "-c", MATERIALIZE],
        # fakesnow knows no comments on columns.
        env=os.environ | environment(settings) | {"WAREHOUSE_PERSIST_DOCS": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-5_000:]
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


@pytest.mark.timeout(600)
def test_a_run_builds_counts_traces_and_publishes_the_marts(tmp_path: Path) -> None:
    with account(tmp_path) as settings:
        set_up(settings)
        lake = Lake(tmp_path)
        write_payments(lake)
        save_cut(settings, "an-earlier-run", cut := lake.cut())
        told = materialize(settings)
        assert published_cut(settings) == cut
    assert told["failed"] == []
    assert told["assets"]["marts/fact_transactions"]["rows"] == 10
    assert told["assets"]["marts/fact_charges"]["lineage"]["fee"] == ["marts/fact_transactions.fee"]
    assert "raw/charges.amount" in told["assets"]["staging/state_charges"]["lineage"]["amount"]
