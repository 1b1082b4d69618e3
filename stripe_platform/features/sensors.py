"""When MongoDB is drained by a run: the sensor that looks at its lag."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from stripe_platform.cdc.drain_requests import Threshold, as_text, run_key
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.assets import DRAIN_OP
from stripe_platform.features.connection import connect
from stripe_platform.features.lag import mongodb_lag
from stripe_platform.features.sink import TABLES
from stripe_platform.jobs import UNFINISHED, oltp_to_mongodb
from stripe_platform.settings import Settings

# A run costs three seconds of start. While the continuous mode keeps up neither is ever reached.
DUE = Threshold(messages=5_000, age=timedelta(seconds=3))

FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=10)
# Long enough to hold as many failures as make the longest pause.
REMEMBERED = 10


@dg.sensor(job=oltp_to_mongodb, minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def documents_lag(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.RunRequest | dg.SkipReason:
    """The continuous process is outside of Dagster: where it does not keep up, a run takes over."""
    unfinished = dg.RunsFilter(job_name=oltp_to_mongodb.name, statuses=UNFINISHED)
    if context.instance.get_runs_count(unfinished):
        return dg.SkipReason("the previous drain has not ended")
    now = datetime.now(UTC)
    if (until := paused_until(context.instance)) and until > now:
        return dg.SkipReason(f"after failed drains the next try is made at {until:%H:%M:%S} UTC")
    try:
        with connect(settings) as documents:
            lags = mongodb_lag(settings, documents, TABLES)
        due = [table for table, behind in lags.items() if DUE.is_passed(behind)]
        if not due:
            return dg.SkipReason(DUE.why_not(lags))
        bounds = last_stable_offsets(settings, due)
    except StripePlatformError as error:
        return dg.SkipReason(f"the lag cannot be measured: {error}")
    return dg.RunRequest(
        run_key=run_key(bounds, now),
        run_config=dg.RunConfig(ops={DRAIN_OP: {"config": {"bounds": as_text(bounds)}}}),
    )


def paused_until(instance: dg.DagsterInstance) -> datetime | None:
    """After failed drains: 30 s from the last one on, twice as long after each further in a row, 10 min at most."""
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    records = instance.get_run_records(dg.RunsFilter(job_name=oltp_to_mongodb.name, statuses=ended), limit=REMEMBERED)
    failures = 0
    for record in records:
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            break
        failures += 1
    if not failures:
        return None
    last: datetime = records[0].update_timestamp
    return last + min(FIRST_PAUSE * (1 << (failures - 1)), LONGEST_PAUSE)
