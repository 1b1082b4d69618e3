"""When jobs run by the clock."""

import dagster as dg

from stripe_platform.jobs import (
    dagster_maintenance,
    data_quality,
    lake_maintenance,
    oltp_to_mongodb,
    partition_maintenance,
)

# At night in UTC, when a payments company's tables are least busy.
daily_data_quality = dg.ScheduleDefinition(
    name="daily_data_quality",
    job=data_quality,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

# Well before the night's checks, which want every month's partition.
daily_partition_maintenance = dg.ScheduleDefinition(
    name="daily_partition_maintenance",
    job=partition_maintenance,
    cron_schedule="30 1 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

# Before the night's checks, which read every log whole: few large files are read faster than many small ones.
nightly_lake_maintenance = dg.ScheduleDefinition(
    name="nightly_lake_maintenance",
    job=lake_maintenance,
    cron_schedule="30 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

# After the night's other jobs, whose runs write to the same storage.
nightly_dagster_maintenance = dg.ScheduleDefinition(
    name="nightly_dagster_maintenance",
    job=dagster_maintenance,
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

# Neither the continuous process nor the lag sensor need run: what a quarter of an hour left is caught up with.
every_15_minutes_oltp_to_mongodb = dg.ScheduleDefinition(
    name="every_15_minutes_oltp_to_mongodb",
    job=oltp_to_mongodb,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
