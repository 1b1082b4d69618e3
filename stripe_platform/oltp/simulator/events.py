"""The outbox: what happened, one event each, with ids, amounts and states and nothing that names a person."""

from dataclasses import dataclass, field

import polars as pl

from stripe_platform.oltp.simulator.aftermath import Aftermath
from stripe_platform.oltp.simulator.payments import Payments
from stripe_platform.oltp.simulator.payouts import PaidOut
from stripe_platform.oltp.simulator.run import DAY, MINUTE, SECOND, Draws, Run

API_VERSION = "2026-09-30"

Tables = dict[str, pl.DataFrame]
_MONEY = ("amount", "currency")


@dataclass
class Outbox:
    """Collects the events of a batch."""

    run: Run
    written: list[pl.DataFrame] = field(default_factory=list)

    def add(
        self,
        happened: pl.DataFrame,
        type_: str | pl.Expr,
        object_type: str,
        at: str | pl.Expr,
        status: str | pl.Expr,
        *,
        fields: tuple[str, ...] = _MONEY,
    ) -> None:
        """An event about each row of `happened`: `id`, `merchant_id` and the columns named; -1 or null: it was not."""
        moment = pl.col(at) if isinstance(at, str) else at
        state = pl.lit(status) if isinstance(status, str) else status
        names = "".join(f',"{name}":{{}}' if name.startswith("amount") else f',"{name}":"{{}}"' for name in fields)
        self.written.append(
            happened.select(
                "merchant_id",
                (pl.lit(type_) if isinstance(type_, str) else type_).alias("type"),
                pl.lit(object_type).alias("object_type"),
                pl.col("id").alias("object_id"),
                pl.format('{{"id":"{}"' + names + ',"status":"{}"}}', "id", *fields, state).alias("payload"),
                moment.cast(pl.Int64).alias("created"),
            ).filter(pl.col("created").is_between(0, self.run.end - 1))
        )

    def rows(self, draws: Draws) -> pl.DataFrame:
        """Rows of `events`, in order of time."""
        events = pl.concat(self.written).sort("created", maintain_order=True)
        return events.with_columns(id=draws.keys(events["created"]), api_version=pl.lit(API_VERSION))


def event_rows(
    run: Run, draws: Draws, tables: Tables, *, payments: Payments, aftermath: Aftermath, paid_out: PaidOut
) -> pl.DataFrame:
    """Rows of `events` for all rows of the batch."""
    outbox = Outbox(run)
    _of_payments(outbox, tables, payments)
    _of_refunds_and_disputes(outbox, tables, payments, aftermath)
    _of_risk(outbox, tables, payments, aftermath)
    _of_billing(outbox, tables)
    _of_payouts(outbox, tables, paid_out)
    return outbox.rows(draws)


def _of_payments(outbox: Outbox, tables: Tables, payments: Payments) -> None:
    intents = tables["payment_intents"].with_columns(at="created")
    latest = payments.intents["latest"].replace(-1, None)
    ended = {
        "captured_at": payments.charges["captured_at"].gather(latest),
        "released_at": payments.charges["released_at"].gather(latest),
        "last": payments.charges["created"].gather(latest),
    }
    intents = intents.with_columns(**ended)
    outbox.add(intents, "payment_intent.created", "payment_intent", "created", "requires_payment_method")
    asked = intents.filter(pl.col("status") == "requires_action")
    outbox.add(asked, "payment_intent.requires_action", "payment_intent", pl.col("at") + SECOND, "requires_action")
    outbox.add(intents, "payment_intent.succeeded", "payment_intent", "captured_at", "succeeded")
    canceled = intents.filter(pl.col("status") == "canceled")
    invoiced = pl.when(pl.col("invoice_id").is_not_null()).then(pl.col("last") + MINUTE).otherwise(pl.col("at") + DAY)
    moment = pl.when(pl.col("released_at") >= 0).then("released_at").otherwise(invoiced)
    outbox.add(canceled, "payment_intent.canceled", "payment_intent", moment, "canceled")
    charges = tables["charges"].with_columns(captured_at=payments.charges["captured_at"])
    name = pl.when("paid").then(pl.lit("charge.succeeded")).otherwise(pl.lit("charge.failed"))
    outbox.add(charges, name, "charge", "created", pl.col("status"))
    by_hand = charges.filter(pl.col("captured_at") > pl.col("created"))
    outbox.add(by_hand, "charge.captured", "charge", "captured_at", "succeeded", fields=("amount_captured", "currency"))
    failed = charges.filter(~pl.col("paid")).with_columns(id="payment_intent_id")
    outbox.add(failed, "payment_intent.payment_failed", "payment_intent", "created", "requires_payment_method")


def _of(tables: Tables, payments: Payments, followers: pl.DataFrame, table: str) -> pl.DataFrame:
    """Rows of a table that follow charges, with the merchant, and the followers' other columns."""
    charge = payments.charges["intent"].gather(followers["charge"])
    more = [name for name in followers.columns if name not in tables[table].columns]
    return tables[table].with_columns(
        payments.intents["merchant_id"].gather(charge), *(followers[name] for name in more)
    )


def _of_refunds_and_disputes(outbox: Outbox, tables: Tables, payments: Payments, aftermath: Aftermath) -> None:
    refunds = _of(tables, payments, aftermath.refunds, "refunds")
    outbox.add(refunds, "refund.created", "refund", "created", "pending")
    outbox.add(refunds, "refund.failed", "refund", "failed_at", "failed")
    given = refunds.filter(pl.col("status") != "canceled").with_columns(id="charge_id")
    outbox.add(given, "charge.refunded", "charge", "created", "succeeded")
    disputes = _of(tables, payments, aftermath.disputes, "disputes")
    first = pl.when("inquiry").then(pl.lit("warning_needs_response")).otherwise(pl.lit("needs_response"))
    outbox.add(disputes, "charge.dispute.created", "dispute", "created", first)
    outbox.add(disputes, "charge.dispute.updated", "dispute", "submitted_at", "under_review")
    outbox.add(disputes, "charge.dispute.closed", "dispute", "closed_at", pl.col("status"))
    moved = disputes.filter(~pl.col("inquiry"))
    outbox.add(moved, "charge.dispute.funds_withdrawn", "dispute", "created", "needs_response")
    outbox.add(moved.filter("won"), "charge.dispute.funds_reinstated", "dispute", "closed_at", "won")


def _of_risk(outbox: Outbox, tables: Tables, payments: Payments, aftermath: Aftermath) -> None:
    warnings = _of(tables, payments, aftermath.warnings, "early_fraud_warnings")
    name = "radar.early_fraud_warning.created"
    outbox.add(warnings, name, "early_fraud_warning", "created", "actionable", fields=("charge_id",))
    reviews = _of(tables, payments, aftermath.reviews, "reviews")
    outbox.add(reviews, "review.opened", "review", "created", "open", fields=("charge_id",))
    outbox.add(reviews, "review.closed", "review", "closed_at", pl.col("closed_reason"), fields=("charge_id",))


def _of_billing(outbox: Outbox, tables: Tables) -> None:
    if "invoices" not in tables:
        return
    invoices = tables["invoices"].with_columns(amount="total")
    outbox.add(invoices, "invoice.created", "invoice", "created", "draft")
    outbox.add(invoices, "invoice.finalized", "invoice", "finalized_at", "open")
    outbox.add(invoices, "invoice.paid", "invoice", "paid_at", "paid")
    failed = tables["charges"].filter(~pl.col("paid"))
    invoiced = tables["payment_intents"].select(payment_intent_id="id", invoice="invoice_id").drop_nulls()
    failed = failed.join(invoiced, on="payment_intent_id", how="inner", maintain_order="left")
    failed = failed.with_columns(id="invoice")
    outbox.add(failed, "invoice.payment_failed", "invoice", "created", "open")
    subscriptions = tables["subscriptions"]
    first = pl.when(pl.col("trial_end").is_not_null()).then(pl.lit("trialing")).otherwise(pl.lit("active"))
    outbox.add(subscriptions, "customer.subscription.created", "subscription", "created", first, fields=("currency",))
    leaving = subscriptions.filter(pl.col("cancel_at").is_not_null())
    outbox.add(leaving, "customer.subscription.updated", "subscription", "canceled_at", "active", fields=("currency",))
    ended = subscriptions.filter(pl.col("status") == "canceled")
    outbox.add(ended, "customer.subscription.deleted", "subscription", "ended_at", "canceled", fields=("currency",))


def _of_payouts(outbox: Outbox, tables: Tables, paid_out: PaidOut) -> None:
    payouts = tables["payouts"].with_columns(paid_out.payouts["arrives"])
    outbox.add(payouts, "payout.created", "payout", "created", "in_transit")
    arrived = payouts.filter(pl.col("status").is_in(["paid", "failed"]))
    outbox.add(arrived, "payout.paid", "payout", "arrives", "paid")
    outbox.add(arrived, "payout.reconciliation_completed", "payout", pl.col("arrives") + MINUTE, "paid")
    outbox.add(
        payouts.filter(pl.col("status") == "failed"), "payout.failed", "payout", pl.col("arrives") + DAY, "failed"
    )
