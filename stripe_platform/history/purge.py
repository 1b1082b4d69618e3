"""Runs that ended long ago go, with their events and logs; what is newest of each asset and check stays."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from stripe_platform.history.storage import (
    NotCompacted,
    compact,
    databases,
    delete_check_results,
    forget_shard,
    shards_without_run,
)
from stripe_platform.settings import Settings

FINISHED_WELL = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED]
# A run takes 50 to 160 ms: enough for a day of a run every ten seconds.
LIMIT = timedelta(minutes=30)


@dataclass(frozen=True)
class Purged:
    """What a night's purge did; bytes are those of all files in DAGSTER_HOME.

    `runs_kept` are old enough to go, but hold the newest materialization of an asset; `runs_left` are the next
    night's. `not_compacted` says by database file why its free pages stay in it.
    """

    runs_deleted: int
    runs_kept: int
    runs_left: int
    check_results_deleted: int
    bytes_before: int
    bytes_after: int
    not_compacted: dict[str, str]
    seconds: float


def purge(instance: dg.DagsterInstance, settings: Settings, *, limit: timedelta = LIMIT) -> Purged:
    """Delete the runs that ended before the days to keep, oldest first, and give the space back.

    Ends after about `limit`. Beside running jobs, and cut short at any point, nothing is lost but what was due: the
    next purge goes on. Of each asset the run of its newest materialization stays, however old: without its events the
    asset would look as if it had never been made. Of each check the newest result stays.
    """
    started = time.monotonic()
    deadline = started + limit.total_seconds()
    bytes_before = _bytes_in(settings.dagster_home)
    now = datetime.now(UTC)
    before = now - timedelta(days=settings.kept_run_days)
    failed_before = now - timedelta(days=settings.kept_failed_run_days)
    due = list(_due_runs(instance, before, failed_before))
    newest = _newest_runs(instance)
    going = [run_id for run_id in due if run_id not in newest]
    deleted = _delete_runs(instance, going, deadline)
    check_results = delete_check_results(instance, before, deadline)
    not_compacted: dict[str, str] = {}
    for database in databases(instance):
        try:
            compact(database, deadline)
        except NotCompacted as error:
            not_compacted[database.name] = str(error)
    return Purged(
        runs_deleted=deleted,
        runs_kept=len(due) - len(going),
        runs_left=len(going) - deleted,
        check_results_deleted=check_results,
        bytes_before=bytes_before,
        bytes_after=_bytes_in(settings.dagster_home),
        not_compacted=not_compacted,
        seconds=time.monotonic() - started,
    )


def _due_runs(instance: dg.DagsterInstance, before: datetime, failed_before: datetime) -> Iterator[str]:
    """Runs past their time, each kind from its oldest on; then what a purge that was cut short left of others."""
    for statuses, ended in ((FINISHED_WELL, before), ([dg.DagsterRunStatus.FAILURE], failed_before)):
        yield from reversed(instance.get_run_ids(dg.RunsFilter(statuses=statuses, updated_before=ended)))
    yield from shards_without_run(instance, before)


def _newest_runs(instance: dg.DagsterInstance) -> set[str]:
    records = (asset.asset_entry.last_materialization_record for asset in instance.get_asset_records())
    return {record.run_id for record in records if record}


def _delete_runs(instance: dg.DagsterInstance, run_ids: Sequence[str], deadline: float) -> int:
    for done, run_id in enumerate(run_ids):
        if time.monotonic() > deadline:
            return done
        _delete_run(instance, run_id)
    return len(run_ids)


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    # In this order, so that after a crash in between something is left to find the rest by: the run, or its file.
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    forget_shard(instance, run_id)


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_size if file.is_file() else 0
        except FileNotFoundError:
            # Runs come and go meanwhile.
            continue
    return total
