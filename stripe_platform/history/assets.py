"""The purge of Dagster's history as an asset, so that its figures are seen over the nights."""

from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from stripe_platform.history.purge import purge
from stripe_platform.settings import Settings

HISTORY_KEY = dg.AssetKey(["dagster", "history"])
# Once a night: without it for two nights the schedule does not run or fails.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))


@dg.asset(
    key=HISTORY_KEY,
    group_name="dagster",
    kinds={"sqlite"},
    owners=["team:platform"],
    freshness_policy=FRESH,
)
def history(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """Runs, events and logs of Dagster itself, for as long as the settings keep them; the newest of each asset."""
    purged = purge(context.instance, settings)
    return dg.MaterializeResult(
        metadata=asdict(purged)
        | {
            "seconds": round(purged.seconds, 3),
            "kept_run_days": settings.kept_run_days,
            "kept_failed_run_days": settings.kept_failed_run_days,
        }
    )
