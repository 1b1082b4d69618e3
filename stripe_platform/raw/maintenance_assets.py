"""The upkeep of the raw change log as an asset of its own: a night's upkeep makes no table fresher."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.assets import raw_key
from stripe_platform.raw.maintenance import TableMaintained, TablesNotMaintained, maintain_all
from stripe_platform.settings import Settings
from stripe_platform.warehouse.engines import published_cut

MAINTENANCE_KEY = dg.AssetKey(["raw", "maintenance"])
# Once a night: without it for two nights the schedule does not run or fails.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))


@dg.asset(
    key=MAINTENANCE_KEY,
    deps=[raw_key(table.name) for table in CAPTURED_TABLES],
    group_name="raw",
    kinds={"deltalake"},
    owners=["team:ingestion"],
    freshness_policy=FRESH,
)
def maintenance(settings: dg.ResourceParam[Settings]) -> Iterator[dg.MaterializeResult[None]]:
    """Small files merged, unread ones deleted, log entries gathered in a checkpoint; no row and no offset changed."""
    published = published_cut(settings)
    # The published file shows the change log by a list of files that was made after its cut.
    read_since = published.made_at if published else None
    try:
        maintained = maintain_all(settings, read_since=read_since)
    except TablesNotMaintained as failed:
        yield _result(failed.maintained)
        raise
    yield _result(maintained)


def _result(maintained: Mapping[str, TableMaintained]) -> dg.MaterializeResult[None]:
    tables = maintained.values()
    records = [
        dg.TableRecord({"table": name} | asdict(table) | {"seconds": round(table.seconds, 3)})
        for name, table in maintained.items()
    ]
    return dg.MaterializeResult(
        metadata={
            "tables": dg.MetadataValue.table(records, schema=_SCHEMA),
            "files_before": sum(table.files_before for table in tables),
            "files_after": sum(table.files_after for table in tables),
            "bytes_before": sum(table.bytes_before for table in tables),
            "bytes_after": sum(table.bytes_after for table in tables),
            "files_deleted": sum(table.files_deleted for table in tables),
            "bytes_deleted": sum(table.bytes_deleted for table in tables),
            "left_for_the_next_night": [name for name, table in maintained.items() if not table.is_compacted],
            "seconds": round(sum(table.seconds for table in tables), 3),
        }
    )


_SCHEMA = dg.TableSchema(
    [
        dg.TableColumn("table", "string"),
        *(dg.TableColumn(f"{what}_{when}", "int") for what in ("files", "bytes") for when in ("before", "after")),
        dg.TableColumn("files_deleted", "int"),
        dg.TableColumn("bytes_deleted", "int"),
        dg.TableColumn("is_compacted", "bool"),
        dg.TableColumn("seconds", "float"),
    ]
)
