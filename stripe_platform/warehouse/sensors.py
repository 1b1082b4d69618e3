"""When the marts are built: as soon as the change stream has moved past the published cut."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.errors import StripePlatformError
from stripe_platform.jobs import UNFINISHED, oltp_to_warehouse
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings
from stripe_platform.warehouse.engines import engine_of

# A failing test fails again on the same data; somebody has to look first.
WAIT_AFTER_FAILURE = timedelta(minutes=10)


@dg.sensor(job=oltp_to_warehouse, minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def warehouse_lag(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.RunRequest | dg.SkipReason:
    """Kafka is outside the graph, so no automation condition can see how far it is past the published marts."""
    now, engine = datetime.now(UTC), engine_of(settings)
    if engine.asking_costs and context.cursor and now < datetime.fromisoformat(context.cursor):
        return dg.SkipReason(f"{settings.warehouse} is not asked before {context.cursor}: to ask it costs money")
    try:
        ends = last_stable_offsets(settings, list(TABLES_BY_NAME))
        published = engine.published_cut(settings)
    except StripePlatformError as error:
        return dg.SkipReason(str(error))
    is_young = published is not None and now - published.made_at < engine.min_age
    next_look = (published.made_at if published and is_young else now) + engine.min_age
    context.update_cursor(next_look.isoformat(timespec="seconds"))
    lag = messages_past(ends, published.offsets if published else {})
    if lag == 0:
        return dg.SkipReason("the published marts are at the end of the change stream")
    if is_young:
        return dg.SkipReason(f"lag {lag:,} messages, but the published marts are younger than {engine.min_age}")
    return _unless_busy(context.instance, now, lag)


def messages_past(ends: dict[str, dict[int, int]], done: dict[str, dict[int, int]]) -> int:
    """How many offsets lie between two offset vectors, {table: {partition: next offset}}."""
    return sum(
        end - done.get(table, {}).get(partition, 0)
        for table, partitions in ends.items()
        for partition, end in partitions.items()
    )


def _unless_busy(instance: dg.DagsterInstance, now: datetime, lag: int) -> dg.RunRequest | dg.SkipReason:
    newest = instance.get_run_records(dg.RunsFilter(job_name=oltp_to_warehouse.name), limit=1)
    if newest and newest[0].dagster_run.status in UNFINISHED:
        return dg.SkipReason(f"lag {lag:,} messages; a build is already under way")
    if newest and newest[0].dagster_run.status == dg.DagsterRunStatus.FAILURE:
        failed = newest[0].update_timestamp
        if now - failed < WAIT_AFTER_FAILURE:
            return dg.SkipReason(f"lag {lag:,} messages; the last build failed: next try {WAIT_AFTER_FAILURE} later")
    # No run key: Dagster would refuse the same key again after a failed run.
    return dg.RunRequest()
