"""The raw change log as assets: one drain fills the tables that a run names."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from stripe_platform.cdc.drain_runs import tag_stopped
from stripe_platform.cdc.report import DrainReport, TableDrained, TablesStopped
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.change_log import columns, row_count
from stripe_platform.raw.drain import bounds_for_run, drain, drain_up_to
from stripe_platform.raw.schema import schema_version
from stripe_platform.settings import Settings

# A quiet table is materialized only by the runs of `oltp_to_warehouse`; a log a day old says nothing new came or
# nothing runs. How far a log is behind is the lag sensor's to tell.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1), warn_window=timedelta(hours=12))

DRAIN_OP = "raw"


class DrainConfig(dg.Config):
    """How far to drain at least; empty: to the last stable offsets when the run begins."""

    # Dagster's configuration knows no integer keys: partitions are written as text.
    bounds: dict[str, dict[str, int]] = Field(default_factory=dict)

    def by_partition(self) -> dict[str, dict[int, int]]:
        """{table: {partition: offset}}."""
        return {
            table: {int(partition): offset for partition, offset in partitions.items()}
            for table, partitions in self.bounds.items()
        }


def raw_key(table: str) -> dg.AssetKey:
    """The key of a table's raw change log."""
    return dg.AssetKey(["raw", table])


@dg.multi_asset(
    name=DRAIN_OP,
    can_subset=True,
    # No pool: drains beside each other do no harm, and a killed run would keep its slot.
    specs=[
        dg.AssetSpec(
            key=raw_key(table.name),
            deps=[["cdc", table.name], ["cdc", "cut"]],
            description=f"Every change of `{table.qualified}`, appended once, typed; offsets in the same commits.",
            group_name="raw",
            kinds={"deltalake"},
            owners=["team:ingestion"],
            freshness_policy=FRESH,
            skippable=True,
        )
        for table in CAPTURED_TABLES
    ],
)
def change_logs(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], config: DrainConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Take what the topics hold into the Delta tables: up to the run's cut when it has one."""
    tables = [table.name for table in CAPTURED_TABLES if raw_key(table.name) in context.selected_asset_keys]
    try:
        report = _drained(settings, context.run.run_id, tables, config)
    except TablesStopped as stopped:
        tag_stopped(context, stopped)
        yield from _results(context.instance, settings, stopped.report)
        raise
    yield from _results(context.instance, settings, report)


def _drained(settings: Settings, run_id: str, tables: list[str], config: DrainConfig) -> DrainReport:
    cut = bounds_for_run(settings, run_id)
    if cut is not None:
        return drain_up_to(settings, tables, cut)
    return drain(settings, tables, bounds=config.by_partition() or None)


def _results(
    instance: dg.DagsterInstance, settings: Settings, report: DrainReport
) -> Iterator[dg.MaterializeResult[None]]:
    for table, drained in report.tables.items():
        yield dg.MaterializeResult(
            asset_key=raw_key(table),
            metadata=_metadata(settings, table, drained)
            | _columns(instance, settings, table)
            | {"drain_seconds": round(report.seconds, 3)},
        )


def _metadata(settings: Settings, table: str, drained: TableDrained) -> dict[str, Any]:
    return {
        "dagster/row_count": row_count(settings, table),
        "rows_added": drained.rows,
        "batches": drained.batches,
        "offsets_from": {str(partition): offset for partition, offset in drained.begin.items()},
        "offsets_to": {str(partition): offset for partition, offset in drained.end.items()},
        "lag": drained.lag,
    }


def _columns(instance: dg.DagsterInstance, settings: Settings, table: str) -> dict[str, Any]:
    """The log's columns when they are others than at the last report: Dagster keeps every report for ever."""
    schema = columns(settings, table) or pa.schema([])
    version = {"columns_version": schema_version(schema)}
    last = instance.get_latest_materialization_event(raw_key(table))
    told = last.asset_materialization.metadata if last and last.asset_materialization else {}
    if "columns_version" in told and told["columns_version"].value == version["columns_version"]:
        return version
    return version | {
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])
    }
