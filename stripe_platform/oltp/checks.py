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
    additional_deps=[["oltp", "charges"], ["oltp", "refunds"], ["oltp", "disputes"], ["oltp", "payouts"]],
)
def movements_have_their_source(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Money that moved for a charge, refund, dispute or payout that is not there cannot be explained to a merchant."""
    return _verdict(settings, ledger.movements_without_source)


@dg.asset_check(
    asset=["oltp", "balance_transactions"],
    additional_deps=[["oltp", "charges"], ["oltp", "refunds"], ["oltp", "disputes"], ["oltp", "payouts"]],
)
def movements_agree_with_their_source(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Money that moved on another merchant's balance, or in a currency that nobody converted to, is not theirs."""
    return _verdict(settings, ledger.movements_unlike_their_source)


@dg.asset_check(asset=["oltp", "charges"], additional_deps=[["oltp", "balance_transactions"]])
def captured_charges_are_in_the_ledger(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A payment that was taken is paid out to its merchant once: not never, not twice, and no other amount."""
    return _verdict(settings, ledger.charges_with_miscounted_movements)


@dg.asset_check(asset=["oltp", "refunds"], additional_deps=[["oltp", "balance_transactions"]])
def refunds_are_in_the_ledger(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A refund that the ledger does not take off the merchant's balance is paid by the platform."""
    return _verdict(settings, ledger.refunds_with_miscounted_movements)


@dg.asset_check(asset=["oltp", "charges"], additional_deps=[["oltp", "payment_intents"]])
def charges_agree_with_their_intent(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A try in another currency, or for another merchant, takes what the customer did not agree to."""
    return _verdict(settings, ledger.charges_unlike_their_intent)


@dg.asset_check(asset=["oltp", "payment_intents"], additional_deps=[["oltp", "charges"]])
def amount_received_was_captured(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A merchant ships by the intent: it must say what its charges took, neither more nor less."""
    return _verdict(settings, ledger.intents_with_miscounted_receipts)


@dg.asset_check(asset=["oltp", "customers"], additional_deps=[["oltp", "charges"]])
def deleted_customers_pay_no_more(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A charge after the customer left was taken without their leave."""
    return _verdict(settings, ledger.charges_after_their_customer_left)


@dg.asset_check(asset=["oltp", "invoices"], additional_deps=[["oltp", "invoice_lines"]])
def invoice_lines_add_up_to_the_subtotal(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A customer who adds up the lines must come to what they are asked to pay."""
    return _verdict(settings, ledger.invoices_with_miscounted_lines)


@dg.asset_check(asset=["oltp", "fee_details"], additional_deps=[["oltp", "balance_transactions"]])
def fee_details_add_up_to_the_fee(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A fee that its parts do not explain cannot be billed to a merchant."""
    return _verdict(settings, ledger.fees_with_miscounted_details)


@dg.asset_check(asset=["oltp", "payouts"], additional_deps=[["oltp", "balance_transactions"]])
def payouts_are_their_movements(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A merchant reconciles a payout to its movements: a difference is money sent without the ledger, or against it."""
    return _verdict(settings, ledger.payouts_with_miscounted_movements)


@dg.asset_check(asset=["oltp", "payouts"], additional_deps=[["oltp", "balance_transactions"]])
def payouts_are_in_the_ledger(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A payout that the ledger does not take off the balance is paid out a second time."""
    return _verdict(settings, ledger.payouts_without_movement)


@dg.asset_check(
    asset=["oltp", "disputes"],
    additional_deps=[["oltp", "dispute_balance_transactions"], ["oltp", "balance_transactions"]],
)
def disputes_have_their_movements(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A won dispute whose money did not come back, or one whose rows go the wrong way, costs somebody the amount."""
    return _verdict(settings, ledger.disputes_with_wrong_movements)
