"""Everything that Dagster serves, readable in one breath."""

import dagster as dg

from stripe_platform import jobs
from stripe_platform.cdc import assets as cdc_assets
from stripe_platform.cdc import checks as cdc_checks
from stripe_platform.cdc import limit_checks
from stripe_platform.cdc.sensors import observe_stream
from stripe_platform.cdc.watch import connector_watch
from stripe_platform.features import assets as features_assets
from stripe_platform.features import checks as features_checks
from stripe_platform.features.sensors import documents_lag
from stripe_platform.history import assets as history_assets
from stripe_platform.local.dagster_beside import warn_if_a_daemon_runs
from stripe_platform.oltp import assets as oltp_assets
from stripe_platform.oltp import checks as oltp_checks
from stripe_platform.oltp import partition_assets
from stripe_platform.raw import assets as raw_assets
from stripe_platform.raw import checks as raw_checks
from stripe_platform.raw import lag_checks, maintenance_assets
from stripe_platform.raw.sensors import drain_raw, raw_lag
from stripe_platform.resources import resources_for
from stripe_platform.schedules import (
    daily_data_quality,
    daily_partition_maintenance,
    every_15_minutes_oltp_to_mongodb,
    nightly_dagster_maintenance,
    nightly_lake_maintenance,
)
from stripe_platform.settings import load_settings
from stripe_platform.warehouse import assets as warehouse_assets
from stripe_platform.warehouse import checks as warehouse_checks
from stripe_platform.warehouse.sensors import warehouse_lag

settings = load_settings()
warn_if_a_daemon_runs(settings)

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(
        [
            oltp_assets,
            partition_assets,
            cdc_assets,
            raw_assets,
            maintenance_assets,
            features_assets,
            warehouse_assets,
            history_assets,
        ],
        include_specs=True,
    ),
    asset_checks=dg.load_asset_checks_from_modules(
        [oltp_checks, cdc_checks, limit_checks, raw_checks, lag_checks, features_checks, warehouse_checks]
    ),
    jobs=[
        jobs.set_up,
        jobs.oltp_to_warehouse,
        jobs.rebuild_marts,
        jobs.oltp_to_mongodb,
        jobs.data_quality,
        jobs.partition_maintenance,
        jobs.lake_maintenance,
        jobs.dagster_maintenance,
        drain_raw,
        jobs.snapshot_tables,
    ],
    schedules=[
        daily_data_quality,
        daily_partition_maintenance,
        nightly_lake_maintenance,
        nightly_dagster_maintenance,
        every_15_minutes_oltp_to_mongodb,
    ],
    sensors=[observe_stream, connector_watch, raw_lag, documents_lag, warehouse_lag],
    resources=resources_for(settings),
)
