"""The OLTP tables as assets."""

from collections.abc import Iterator

import dagster as dg

from stripe_platform.oltp.catalog import Column
from stripe_platform.oltp.table_state import TableState, bring_up_to_date
from stripe_platform.oltp.tables import CAPTURED_TABLES, CapturedTable
from stripe_platform.privacy.columns import personal_columns
from stripe_platform.settings import Settings


def _spec(table: CapturedTable) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=["oltp", table.name],
        description=table.description,
        group_name="oltp",
        kinds={"postgres"},
        owners=["team:payments"],
        tags={"pii": "true"} if table.name in personal_columns() else {},
    )


@dg.multi_asset(name="oltp_tables", specs=[_spec(table) for table in CAPTURED_TABLES], can_subset=True)
def oltp_tables(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
) -> Iterator[dg.MaterializeResult[None]]:
    """The tables of the system of record: migrated, with partitions for the months to come, counted."""
    selected = [
        table.name for table in CAPTURED_TABLES if dg.AssetKey(["oltp", table.name]) in context.selected_asset_keys
    ]
    for state in bring_up_to_date(settings, selected):
        yield dg.MaterializeResult(asset_key=["oltp", state.name], metadata=_metadata(state))


def _metadata(state: TableState) -> dict[str, dg.MetadataValue]:
    schema = dg.TableSchema(columns=[_column(column) for column in state.columns])
    return {
        "dagster/row_count": dg.MetadataValue.int(state.rows),
        "row_count_is": dg.MetadataValue.text("exact" if state.exact else "estimate"),
        "dagster/column_schema": dg.MetadataValue.table_schema(schema),
    }


def _column(column: Column) -> dg.TableColumn:
    type_name = column.type
    if column.precision is not None:
        type_name = f"{column.type}({column.precision},{column.scale})"
    return dg.TableColumn(
        name=column.name,
        type=type_name,
        description=column.comment,
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
    )
