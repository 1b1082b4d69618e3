"""When jobs run by the clock."""

import dagster as dg

from stripe_platform.jobs import data_quality

# At night in UTC, when a payments company's tables are least busy.
daily_data_quality = dg.ScheduleDefinition(
    name="daily_data_quality",
    job=data_quality,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
