"""Rows of subscriptions, their items, invoices and invoice lines."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator.billing import Billing
from stripe_platform.oltp.simulator.payments import Payments
from stripe_platform.oltp.simulator.run import Draws
from stripe_platform.oltp.simulator.scope import Scope
from stripe_platform.oltp.simulator.shop import Shop


@dataclass(frozen=True)
class BillingKeys:
    """The keys of the subscriptions, items and invoices of a batch, in their order."""

    subscriptions: pl.Series
    items: pl.Series
    invoices: pl.Series


def billing_keys(draws: Draws, billing: Billing) -> BillingKeys:
    """Keys for what has been billed."""
    starts = billing.subscriptions["start"]
    at = billing.invoices["at"] if billing.invoices.height else pl.Series([], dtype=pl.Int64)
    return BillingKeys(draws.keys(starts), draws.keys(starts), draws.keys(at))


def with_invoices(billing: Billing, keys: BillingKeys, payments: Payments) -> Payments:
    """The payments with `invoice_id`; those of invoices that were given up are canceled."""
    place = payments.intents["invoice"].replace(-1, None)
    if billing.invoices.is_empty():
        return Payments(payments.intents.with_columns(invoice_id=pl.lit(None, dtype=pl.String)), payments.charges)
    given_up = billing.invoices["given_up"].gather(place).fill_null(False)
    first = billing.invoices["first"].gather(place)
    intents = payments.intents.with_columns(
        invoice_id=keys.invoices.gather(place),
        status=pl.when(given_up).then(pl.lit("canceled")).otherwise("status"),
        canceled=pl.when(given_up & first)
        .then(pl.lit("void_invoice"))
        .when(given_up)
        .then(pl.lit("failed_invoice"))
        .otherwise("canceled"),
    )
    return Payments(intents, payments.charges)


def subscription_rows(scope: Scope, billing: Billing, keys: BillingKeys) -> pl.DataFrame:
    """Rows of `subscriptions`."""
    subscriptions = billing.subscriptions
    customers = scope.customers[subscriptions["customer"] - scope.first_customer[0]]
    happened = [
        pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in ("cancel_at", "canceled_at", "ended_at")
    ]
    return subscriptions.select(
        keys.subscriptions.alias("id"),
        scope.merchant_ids(subscriptions["merchant"]).alias("merchant_id"),
        customers["id"].alias("customer_id"),
        customers["method_id"].alias("default_payment_method_id"),
        scope.currencies(subscriptions["merchant"].to_numpy()).alias("currency"),
        "status",
        pl.col("start").alias("start_date"),
        pl.when("trial").then(pl.col("anchor")).alias("trial_end"),
        *happened,
        pl.col("start").alias("created"),
    )


def item_rows(sold: Shop, billing: Billing, keys: BillingKeys) -> pl.DataFrame:
    """Rows of `subscription_items`, one for each subscription, with the price that it has come to."""
    subscriptions = billing.subscriptions
    price = sold.recurring(*(subscriptions[name] for name in ("merchant", "product", "interval")))
    return subscriptions.select(
        keys.items.alias("id"),
        keys.subscriptions.alias("subscription_id"),
        price["id"].alias("price_id"),
        pl.col("period_start").alias("current_period_start"),
        pl.col("period_end").alias("current_period_end"),
        pl.col("start").alias("created"),
    )


def paid_at(billing: Billing, payments: Payments) -> pl.Series:
    """When each invoice was paid, or null: by its payment, or at once when there was nothing to pay."""
    invoiced = payments.intents.filter(pl.col("invoice") >= 0, pl.col("received") > 0)
    at = np.where((billing.invoices["total"] == 0).to_numpy(), billing.invoices["final"].to_numpy(), -1)
    at[invoiced["invoice"].to_numpy()] = payments.charges["captured_at"].gather(invoiced["latest"]).to_numpy()
    return pl.Series(at).replace(-1, None)


def invoice_rows(scope: Scope, billing: Billing, keys: BillingKeys, payments: Payments) -> pl.DataFrame:
    """Rows of `invoices`; numbers count up within a merchant in the order of being final."""
    invoices = billing.invoices
    if invoices.is_empty():
        return pl.DataFrame()
    subscriptions = billing.subscriptions[invoices["subscription"]]
    customers = scope.customers[subscriptions["customer"] - scope.first_customer[0]]
    merchant = subscriptions["merchant"]
    final = pl.col("final") < scope.run.end
    place = pl.col("final").rank("ordinal").over("merchant")
    prefix = scope.merchant_ids(merchant).str.slice(24, 8).str.to_uppercase()
    settled = paid_at(billing, payments)
    status = (
        pl.when(~final).then(pl.lit("draft")).when("settled").then(pl.lit("paid"))
        .when(pl.col("given_up") & pl.col("first")).then(pl.lit("void"))
        .when("given_up").then(pl.lit("uncollectible")).otherwise(pl.lit("open"))
    )  # fmt: skip
    return invoices.with_columns(merchant=merchant, prefix=prefix, settled=settled.is_not_null()).select(
        keys.invoices.alias("id"),
        scope.merchant_ids(merchant).alias("merchant_id"),
        customers["id"].alias("customer_id"),
        keys.subscriptions.gather(invoices["subscription"]).alias("subscription_id"),
        pl.when(final).then(pl.format("{}-{}", "prefix", place.cast(pl.String).str.zfill(5))).alias("number"),
        status.alias("status"),
        pl.col("reason").alias("billing_reason"),
        scope.currencies(merchant.to_numpy()).alias("currency"),
        "subtotal",
        "tax",
        "total",
        pl.col("total").alias("amount_due"),
        pl.when("settled").then(pl.col("total")).otherwise(0).alias("amount_paid"),
        "period_start",
        "period_end",
        pl.when(final).then(pl.col("final")).alias("finalized_at"),
        settled.alias("paid_at"),
        pl.col("at").alias("created"),
    )


def line_rows(scope: Scope, draws: Draws, billing: Billing, keys: BillingKeys) -> pl.DataFrame:
    """Rows of `invoice_lines`."""
    lines = billing.lines
    if lines.is_empty():
        return pl.DataFrame()
    invoices = billing.invoices[lines["invoice"]]
    merchant = billing.subscriptions["merchant"].gather(invoices["subscription"]).to_numpy()
    return lines.select(
        draws.keys(invoices["at"]).alias("id"),
        keys.invoices.gather(lines["invoice"]).alias("invoice_id"),
        keys.items.gather(invoices["subscription"]).alias("subscription_item_id"),
        "price_id",
        "amount",
        scope.currencies(merchant).alias("currency"),
        "description",
        "proration",
        "period_start",
        "period_end",
        invoices["at"].alias("created"),
    )
