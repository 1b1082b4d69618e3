"""When MongoDB is drained by a run: the sensor that looks at its lag."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from stripe_platform.cdc.drain_requests import Threshold, as_text, run_key
from stripe_platform.cdc.drain_runs import failed_drains, lately_stopped, paused_tables, waiting
from stripe_platform.cdc.lag import Lag
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.assets import DRAIN_OP
from stripe_platform.features.connection import connect
from stripe_platform.features.lag import mongodb_lag
from stripe_platform.features.offsets import Stored, stored_offsets
from stripe_platform.features.sink import TABLES
from stripe_platform.features.transaction import named_failures
from stripe_platform.jobs import UNFINISHED, oltp_to_mongodb
from stripe_platform.settings import Settings

# A run costs three seconds of start. While the continuous mode keeps up neither is ever reached.
DUE = Threshold(messages=5_000, age=timedelta(seconds=3))
# While payments come the run stays, for between two runs lie fifteen seconds: of looking, of starting, of ending.
QUIET_SECONDS = 5.0


@dg.sensor(job=oltp_to_mongodb, minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def documents_lag(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.RunRequest | dg.SkipReason:
    """The continuous process is outside of Dagster: where it does not go on, a run takes over."""
    unfinished = dg.RunsFilter(job_name=oltp_to_mongodb.name, statuses=UNFINISHED)
    if context.instance.get_runs_count(unfinished):
        # What the run has moved says nothing of others.
        context.update_cursor("")
        return dg.SkipReason("the previous drain has not ended")
    try:
        with connect(settings) as documents, named_failures(settings):
            lags = mongodb_lag(settings, documents, TABLES)
            stored = stored_offsets(documents)
        return _asked(context, settings, lags, stored)
    except StripePlatformError as error:
        return dg.SkipReason(f"the lag cannot be measured: {error}")


def _asked(
    context: dg.SensorEvaluationContext, settings: Settings, lags: Mapping[str, Lag], stored: Stored
) -> dg.RunRequest | dg.SkipReason:
    seen = context.cursor
    context.update_cursor(str(stored.version))
    due = [table for table, behind in lags.items() if DUE.is_passed(behind)]
    if not due:
        return dg.SkipReason(DUE.why_not(lags))
    if seen and seen != str(stored.version):
        # However far behind it is, a second writer would only take turns with it.
        return dg.SkipReason("another writer is at work on what is unread")
    failed = failed_drains(context.instance, job=oltp_to_mongodb.name, op=DRAIN_OP)
    paused = paused_tables(failed, lags, lambda table: stored.next_offsets([table])[table])
    if paused.keys() >= set(due):
        return dg.SkipReason(waiting(paused))
    left_out = paused.keys() | (lately_stopped(failed) - set(due))
    # With those that are not due: what belongs to a document comes into it at once.
    bounds = last_stable_offsets(settings, [table for table in lags if table not in left_out])
    config = {"bounds": as_text(bounds), "quiet_seconds": QUIET_SECONDS}
    return dg.RunRequest(
        run_key=run_key(bounds, datetime.now(UTC)), run_config=dg.RunConfig(ops={DRAIN_OP: {"config": config}})
    )
