"""Drains as runs of Dagster: which of them failed, and which tables are left alone for now because of that.

The sensors of both sinks share this, so that a table that stops is tried again as late in either, and the others go on.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from stripe_platform.cdc.pauses import REMEMBERED, FailedDrain, Pause, pause_of
from stripe_platform.cdc.report import TablesStopped

# On a run in which tables stopped: {table: name of its error} as JSON.
STOPPED_TAG = "stripe_platform/stopped"


def tag_stopped(context: dg.AssetExecutionContext, stopped: TablesStopped) -> None:
    """Write on the run which of its tables stopped, for `paused_tables` to read."""
    errors = {table: type(error).__name__ for table, error in stopped.errors.items()}
    context.instance.add_run_tags(context.run.run_id, {STOPPED_TAG: json.dumps(errors)})


def failed_drains(instance: dg.DagsterInstance, *, job: str, op: str) -> list[FailedDrain]:
    """The job's drains that failed lately; `op` is the job's, whose configuration holds the bounds."""
    since = datetime.now(UTC) - REMEMBERED
    filters = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    return [_failed_drain(record, op) for record in instance.get_run_records(filters)]


def paused_tables(
    failed: Iterable[FailedDrain], tables: Iterable[str], next_offsets: Callable[[str], Mapping[int, int]]
) -> dict[str, Pause]:
    """The tables that are left alone for now, so that the others are drained and no run fails every few seconds.

    `next_offsets` tells how far the sink is in a table now.
    """
    now, drains = datetime.now(UTC), list(failed)
    pauses = {table: pause_of(table, drains, next_offsets) for table in tables}
    return {table: pause for table, pause in pauses.items() if pause and pause.until > now}


def lately_stopped(failed: Iterable[FailedDrain]) -> frozenset[str]:
    """The tables that failed drains name: what nobody needs of them is better not asked for."""
    return frozenset(table for drain in failed for table in drain.stopped)


def waiting(paused: Mapping[str, Pause]) -> str:
    """Until when the tables are left alone and why, for people."""
    return "after failed drains the next try is made: " + "; ".join(
        f"{table} at {pause.until:%H:%M:%S} UTC ({pause.reason})" for table, pause in paused.items()
    )


def _failed_drain(record: dg.RunRecord, op: str) -> FailedDrain:
    run = record.dagster_run
    # A run that somebody started by hand may have none of it.
    ops: Any = run.run_config.get("ops", {})
    config = ops.get(op, {}).get("config", {})
    bounds = {
        table: {int(partition): offset for partition, offset in partitions.items()}
        for table, partitions in config.get("bounds", {}).items()
    }
    return FailedDrain(run.run_id, record.update_timestamp, bounds, json.loads(run.tags.get(STOPPED_TAG, "{}")))
