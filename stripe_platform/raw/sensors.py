"""When to drain: the sensor that looks at the lag of every raw change log, and the job it asks for."""

from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from stripe_platform.cdc.drain_requests import Threshold, as_text, run_key
from stripe_platform.cdc.drain_runs import failed_drains, paused_tables, waiting
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.errors import StripePlatformError
from stripe_platform.jobs import UNFINISHED
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw import lag
from stripe_platform.raw.assets import DRAIN_OP, raw_key
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.settings import Settings

# A run costs three seconds of start. The age is above the pause of the continuous mode between two commits: while that
# keeps up no run is asked for. Without it a change is in the log half a minute after its commit.
DUE = Threshold(messages=5_000, age=timedelta(seconds=20))

# Checks scan whole logs: they run with `oltp_to_warehouse`, not with every drain.
drain_raw = dg.define_asset_job(
    "drain_raw",
    selection=dg.AssetSelection.assets(*(raw_key(table.name) for table in CAPTURED_TABLES)).without_checks(),
    executor_def=dg.in_process_executor,
    # A drain takes 45 s: one that hangs must not keep the sensor waiting for as long as other runs may last.
    tags={"dagster/max_runtime": "180"},
    description="Take what the topics hold into the raw change log.",
)


@dg.sensor(job=drain_raw, minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def raw_lag(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.RunRequest | dg.SkipReason:
    """Kafka is outside the graph, so no automation condition can see what waits in it."""
    unfinished = dg.RunsFilter(job_name=drain_raw.name, statuses=UNFINISHED)
    if context.instance.get_runs_count(unfinished):
        return dg.SkipReason("the previous drain has not ended")
    try:
        lags = lag.raw_lag(settings)
        due = [table for table, behind in lags.items() if DUE.is_passed(behind)]
        if not due:
            return dg.SkipReason(DUE.why_not(lags))
        failed = failed_drains(context.instance, job=drain_raw.name, op=DRAIN_OP)
        paused = paused_tables(failed, due, partial(next_offsets, settings))
        ready = [table for table in due if table not in paused]
        if not ready:
            return dg.SkipReason(waiting(paused))
        bounds = last_stable_offsets(settings, ready)
    except StripePlatformError as error:
        return dg.SkipReason(f"the lag cannot be measured: {error}")
    return dg.RunRequest(
        run_key=run_key(bounds, datetime.now(UTC)),
        asset_selection=[raw_key(table) for table in ready],
        run_config=dg.RunConfig(ops={DRAIN_OP: {"config": {"bounds": as_text(bounds)}}}),
    )
