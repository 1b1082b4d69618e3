"""What must hold in the OLTP tables beyond what their constraints enforce."""

from collections.abc import Callable

import dagster as dg
import psycopg

from stripe_platform.oltp import ledger
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings


def _verdict(settings: Settings, counted: Callable[[psycopg.Connection], int]) -> dg.AssetCheckResult:
    with connect(settings) as connection:
        bad = counted(connection)
    return dg.AssetCheckResult(passed=bad == 0, metadata={"bad_rows": bad})


def _default_partition_is_empty(table: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=["oltp", table], name="default_partition_is_empty")
    def default_partition_is_empty(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        """A row there has no monthly partition: the months to come were not made in time, or its date is wrong."""
        return _verdict(settings, lambda connection: ledger.rows_in_default_partition(connection, table))

    return default_partition_is_empty


default_partitions_are_empty = [_default_partition_is_empty(table.name) for table in CAPTURED_TABLES if table.monthly]


@dg.asset_check(asset=["oltp", "charges"], additional_deps=[["oltp", "refunds"]])
def charges_refunded_equals_refunds(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A charge that says another sum than its refunds was written past the trigger: the merchant's balance is wrong."""
    return _verdict(settings, ledger.charges_with_miscounted_refunds)


@dg.asset_check(asset=["oltp", "charges"], additional_deps=[["oltp", "disputes"]])
def charges_disputed_equals_disputes(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Fraud labels come from disputes, dashboards from the mark on the charge: they must not tell two stories."""
    return _verdict(settings, ledger.charges_with_mismarked_disputes)


@dg.asset_check(
    asset=["oltp", "balance_transactions"],
    additional_deps=[["oltp", "charges"], ["oltp", "refunds"], ["oltp", "disputes"]],
)
def movements_have_their_source(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Money that moved for a charge, refund or dispute that does not exist cannot be explained to a merchant."""
    return _verdict(settings, ledger.movements_without_source)
