"""When to drain: the sensor that looks at the lag of every raw change log, and the job it asks for."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from stripe_platform.cdc.drain_requests import Threshold, as_text, run_key
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.errors import StripePlatformError
from stripe_platform.jobs import UNFINISHED
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw import lag
from stripe_platform.raw.assets import STOPPED_TAG, raw_key
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.raw.pauses import REMEMBERED, FailedDrain, Pause, pause_of
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
        paused = _paused(context.instance, settings, due)
        ready = [table for table in due if table not in paused]
        if not ready:
            return dg.SkipReason(_waiting(paused))
        bounds = last_stable_offsets(settings, ready)
    except StripePlatformError as error:
        return dg.SkipReason(f"the lag cannot be measured: {error}")
    return dg.RunRequest(
        run_key=run_key(bounds, datetime.now(UTC)),
        asset_selection=[raw_key(table) for table in ready],
        run_config=dg.RunConfig(ops={"raw": {"config": {"bounds": as_text(bounds)}}}),
    )


def _paused(instance: dg.DagsterInstance, settings: Settings, tables: list[str]) -> dict[str, Pause]:
    """The tables that are left alone for now, so that the others are drained and no run fails every few seconds."""
    now = datetime.now(UTC)
    filters = dg.RunsFilter(
        job_name=drain_raw.name, statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - REMEMBERED
    )
    failed = [_failed_drain(record) for record in instance.get_run_records(filters)]
    pauses = {table: pause_of(table, failed, partial(next_offsets, settings)) for table in tables}
    return {table: pause for table, pause in pauses.items() if pause and pause.until > now}


def _failed_drain(record: dg.RunRecord) -> FailedDrain:
    run = record.dagster_run
    # A run that somebody started by hand may have none of it.
    ops: Any = run.run_config.get("ops", {})
    config = ops.get("raw", {}).get("config", {})
    bounds = {
        table: {int(partition): offset for partition, offset in partitions.items()}
        for table, partitions in config.get("bounds", {}).items()
    }
    return FailedDrain(run.run_id, record.update_timestamp, bounds, json.loads(run.tags.get(STOPPED_TAG, "{}")))


def _waiting(paused: Mapping[str, Pause]) -> str:
    return "after failed drains the next try is made: " + "; ".join(
        f"{table} at {pause.until:%H:%M:%S} UTC ({pause.reason})" for table, pause in paused.items()
    )
