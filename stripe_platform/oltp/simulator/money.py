"""The ledger of a batch: every movement of its merchants' balances, and what their fees are made of."""

import numpy as np
import polars as pl

from stripe_platform.oltp.fees import DISPUTE_FEE, charge_fee_expression
from stripe_platform.oltp.simulator.aftermath import Aftermath
from stripe_platform.oltp.simulator.catalogue import COUNTRY_CODES
from stripe_platform.oltp.simulator.payments import Payments
from stripe_platform.oltp.simulator.payouts import PaidOut
from stripe_platform.oltp.simulator.run import DAY, Draws
from stripe_platform.oltp.simulator.scope import Scope

AVAILABLE_AFTER = 2 * DAY

# A movement: merchant's number, its source, and what the balance changes by.
_COLUMNS = (
    "merchant", "amount", "fee", "type", "reporting_category", "source_type", "source_id", "created", "available_on",
    "kind",
)  # fmt: skip
_VAT_ON_FEES = ("AU", "CA", "SG")


def movements(scope: Scope, draws: Draws, payments: Payments, aftermath: Aftermath) -> pl.DataFrame:
    """The movements that payments lead to, in order of time, each with its `id`; payouts come on top of them.

    `kind` tells the two movements of one refund or dispute apart.
    """
    moved = [_captured(payments), *_refunded(payments, aftermath), *_disputed(payments, aftermath)]
    all_of_them = pl.concat(moved).sort("created", "source_id")
    return all_of_them.with_columns(id=draws.keys(all_of_them["created"]))


def _captured(payments: Payments) -> pl.DataFrame:
    charges = payments.charges.filter(pl.col("captured") > 0)
    return charges.select(
        _merchant(payments, charges["intent"]),
        pl.col("captured").alias("amount"),
        charge_fee_expression(pl.col("captured")).alias("fee"),
        pl.lit("charge").alias("type"),
        pl.lit("charge").alias("reporting_category"),
        pl.lit("charge").alias("source_type"),
        pl.col("id").alias("source_id"),
        pl.col("captured_at").alias("created"),
        (pl.col("captured_at") + AVAILABLE_AFTER).alias("available_on"),
        pl.lit("captured").alias("kind"),
    ).select(_COLUMNS)


def _refunded(payments: Payments, aftermath: Aftermath) -> list[pl.DataFrame]:
    refunds = aftermath.refunds.filter(pl.col("status") != "canceled")
    given = _movement(payments, refunds, -pl.col("amount"), ("refund", "refund", "refund"), "at")
    failed = refunds.filter(pl.col("failed_at") >= 0)
    back = _movement(payments, failed, pl.col("amount"), ("refund_failure", "refund_failure", "refund"), "failed_at")
    return [given.with_columns(kind=pl.lit("given")), back.with_columns(kind=pl.lit("failed"))]


def _disputed(payments: Payments, aftermath: Aftermath) -> list[pl.DataFrame]:
    disputes = aftermath.disputes.filter(~pl.col("inquiry"))
    withdrawn = _movement(payments, disputes, -pl.col("amount"), ("adjustment", "dispute", "dispute"), "at")
    won = disputes.filter("won")
    reinstated = _movement(payments, won, pl.col("amount"), ("adjustment", "dispute_reversal", "dispute"), "closed_at")
    return [
        withdrawn.with_columns(fee=pl.lit(DISPUTE_FEE, dtype=pl.Int64), kind=pl.lit("withdrawn")),
        reinstated.with_columns(kind=pl.lit("reinstated")),
    ]


def _merchant(payments: Payments, intent: pl.Series) -> pl.Series:
    return payments.intents["merchant"].gather(intent)


def _movement(
    payments: Payments, sources: pl.DataFrame, amount: pl.Expr, names: tuple[str, str, str], at: str
) -> pl.DataFrame:
    type_, category, source = names
    return sources.select(
        _merchant(payments, payments.charges["intent"].gather(sources["charge"])),
        amount.alias("amount"),
        pl.lit(0, dtype=pl.Int64).alias("fee"),
        pl.lit(type_).alias("type"),
        pl.lit(category).alias("reporting_category"),
        pl.lit(source).alias("source_type"),
        pl.col("id").alias("source_id"),
        pl.col(at).alias("created"),
        pl.col(at).alias("available_on"),
        pl.lit("").alias("kind"),
    ).select(_COLUMNS)


def movement_rows(scope: Scope, moved: pl.DataFrame, paid_out: PaidOut) -> pl.DataFrame:
    """Rows of `balance_transactions`: the movements of payments, each with its payout, and those of payouts."""
    every = pl.concat([moved.with_columns(payout_id=paid_out.of_movement), paid_out.movements]).sort("created", "id")
    return every.select(
        "id",
        scope.merchant_ids(every["merchant"]).alias("merchant_id"),
        "amount",
        "fee",
        (pl.col("amount") - pl.col("fee")).alias("net"),
        scope.currencies(every["merchant"].to_numpy()).alias("currency"),
        "type",
        "reporting_category",
        pl.when(pl.col("available_on") <= scope.run.end)
        .then(pl.lit("available"))
        .otherwise(pl.lit("pending"))
        .alias("status"),
        "available_on",
        "source_type",
        "source_id",
        "payout_id",
        "created",
    )


def fee_rows(scope: Scope, draws: Draws, moved: pl.DataFrame) -> pl.DataFrame:
    """Rows of `fee_details`: where fees are taxed, a tenth of them on top is tax; the parts add up to the fee."""
    charged = moved.filter(pl.col("fee") > 0)
    country = scope.population.merchants["country"].gather(charged["merchant"])
    taxed = pl.Series(np.isin(COUNTRY_CODES[country.to_numpy()], _VAT_ON_FEES))
    fee = charged.select(
        pl.col("id").alias("balance_transaction_id"),
        pl.col("created").alias("balance_transaction_created"),
        "fee",
        pl.when(taxed).then(pl.col("fee") // 11).otherwise(0).alias("tax"),
        scope.currencies(charged["merchant"].to_numpy()).alias("currency"),
        "created",
    )
    own = fee.select(pl.exclude("fee", "tax"), amount=pl.col("fee") - pl.col("tax")).with_columns(
        type=pl.lit("stripe_fee"), description=pl.lit("Processing fee")
    )
    tax = fee.filter(pl.col("tax") > 0).select(pl.exclude("fee", "tax"), amount=pl.col("tax"))
    parts = pl.concat([own, tax.with_columns(type=pl.lit("tax"), description=pl.lit("Tax on fees"))])
    return parts.with_columns(id=draws.keys(parts["created"]))
