"""The raw change log as assets: one drain fills the tables that a run names."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from stripe_platform.cdc.report import DrainReport, TableDrained, TablesStopped
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.change_log import columns, row_count
from stripe_platform.raw.drain import bounds_for_run, drain, drain_up_to
from stripe_platform.settings import Settings

# A quiet table is materialized only by the runs of `oltp_to_warehouse`; a log a day old says nothing new came or
# nothing runs. How far a log is behind is the lag sensor's to tell.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1), warn_window=timedelta(hours=12))


class DrainConfig(dg.Config):
    """How far to drain at least; empty: to the last stable offsets when the run begins."""

    # Dagster's configuration knows no integer keys: partitions are written as text.
    bounds: dict[str, dict[str, int]] = Field(default_factory=dict)


def raw_key(table: str) -> dg.AssetKey:
    """The key of a table's raw change log."""
    return dg.AssetKey(["raw", table])


@dg.multi_asset(
    name="raw",
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
        yield from _results(settings, stopped.report)
        raise
    yield from _results(settings, report)


def _drained(settings: Settings, run_id: str, tables: list[str], config: DrainConfig) -> DrainReport:
    cut = bounds_for_run(settings, run_id)
    if cut is not None:
        return drain_up_to(settings, tables, cut)
    bounds = {
        table: {int(partition): offset for partition, offset in partitions.items()}
        for table, partitions in config.bounds.items()
    }
    return drain(settings, tables, bounds=bounds or None)


def _results(settings: Settings, report: DrainReport) -> Iterator[dg.MaterializeResult[None]]:
    for table, drained in report.tables.items():
        yield dg.MaterializeResult(
            asset_key=raw_key(table),
            metadata=_metadata(settings, table, drained) | {"drain_seconds": round(report.seconds, 3)},
        )


def _metadata(settings: Settings, table: str, drained: TableDrained) -> dict[str, Any]:
    return {
        "dagster/row_count": row_count(settings, table),
        "dagster/column_schema": _column_schema(columns(settings, table)),
        "rows_added": drained.rows,
        "batches": drained.batches,
        "offsets_from": {str(partition): offset for partition, offset in drained.begin.items()},
        "offsets_to": {str(partition): offset for partition, offset in drained.end.items()},
        "lag": drained.lag,
    }


def _column_schema(schema: pa.Schema | None) -> dg.TableSchema:
    fields = [] if schema is None else list(schema)
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in fields])
