"""The jobs of the platform: what runs together, and how."""

import dagster as dg

from stripe_platform.cdc.assets import take_tables
from stripe_platform.cdc.snapshot import SNAPSHOT_LIMIT

# A sensor asks for no run beside one that is still on its way.
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

PARTITIONS = dg.AssetSelection.assets(["oltp", "partitions"])
LAKE = dg.AssetSelection.assets(["raw", "maintenance"])

# One process for all steps: a step process of its own costs about ten seconds here, for loading the definitions.
# dbt runs as a command of its own, so no step keeps the DuckDB file open (docs/adr/0004-one-process-per-run.md).
set_up = dg.define_asset_job(
    "set_up",
    selection=(dg.AssetSelection.groups("oltp") - PARTITIONS) | dg.AssetSelection.assets(["cdc", "connector"]),
    executor_def=dg.in_process_executor,
    description="Migrate PostgreSQL, make partitions, create the topics and register the connector.",
)

oltp_to_warehouse = dg.define_asset_job(
    "oltp_to_warehouse",
    selection=(
        dg.AssetSelection.assets(["cdc", "cut"])
        | (dg.AssetSelection.groups("raw") - LAKE).without_checks()
        | dg.AssetSelection.groups("staging", "intermediate", "marts")
    ),
    executor_def=dg.in_process_executor,
    # A process that was killed cannot say so: past this the run counts as failed, and the sensor asks again.
    tags={"dagster/max_runtime": "1800"},
    description="Take a cut of the change stream, drain to it, build the marts on it and publish them.",
)

rebuild_marts = dg.define_asset_job(
    "rebuild_marts",
    selection=dg.AssetSelection.groups("staging", "intermediate", "marts"),
    executor_def=dg.in_process_executor,
    tags={"dagster/max_runtime": "3600"},
    description="Build the marts on the newest cut and publish them; by config, one month or all is computed again.",
)

oltp_to_mongodb = dg.define_asset_job(
    "oltp_to_mongodb",
    selection=dg.AssetSelection.groups("features").without_checks(),
    executor_def=dg.in_process_executor,
    # A drain takes 45 s: one that hangs must not keep the sensor waiting for as long as other runs may last.
    tags={"dagster/max_runtime": "180"},
    description="Apply what the topics hold to MongoDB's documents and features.",
)

_stored = dg.AssetSelection.groups("oltp", "cdc", "raw", "features")
# These scan whole tables and logs: once a day, not with every build.
data_quality = dg.define_asset_job(
    "data_quality",
    selection=_stored - _stored.without_checks(),
    executor_def=dg.in_process_executor,
    description="Every check of the OLTP tables, the connector, the raw change log and MongoDB.",
)

partition_maintenance = dg.define_asset_job(
    "partition_maintenance",
    selection=PARTITIONS,
    executor_def=dg.in_process_executor,
    description="Make the months to come of the partitioned tables, and archive those past their retention.",
)

lake_maintenance = dg.define_asset_job(
    "lake_maintenance",
    selection=LAKE,
    executor_def=dg.in_process_executor,
    description="Merge the small files of the raw change log, and delete those that nobody reads any more.",
)

dagster_maintenance = dg.define_asset_job(
    "dagster_maintenance",
    selection=dg.AssetSelection.assets(["dagster", "history"]),
    executor_def=dg.in_process_executor,
    description="Delete old runs of Dagster with their events and logs, and give the space back.",
)


@dg.job(
    executor_def=dg.in_process_executor,
    tags={"dagster/max_runtime": str(int(SNAPSHOT_LIMIT.total_seconds()) + 300)},
    description="Take captured tables into their topics by incremental snapshots: new ones, or again after a loss.",
)
def snapshot_tables() -> None:
    """Configured on its one op: `tables` and `again`."""
    take_tables()
