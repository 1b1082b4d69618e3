"""Rows of payment intents, charges, their outcomes, and of what follows them."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.aftermath import Aftermath
from stripe_platform.oltp.simulator.payments import (
    APPROVED,
    AUTHENTICATION,
    BLOCKED,
    DECLINE_CODES,
    ELEVATED,
    HIGHEST,
    THREE_D,
    Payments,
)
from stripe_platform.oltp.simulator.payouts import PaidOut
from stripe_platform.oltp.simulator.run import Draws
from stripe_platform.oltp.simulator.scope import Scope
from stripe_platform.oltp.simulator.wishes import addresses, devices

MODEL_VERSION = "rules-1"

# Decline codes that are their own failure code; for all others that is `card_declined`.
_OWN_FAILURE = ("expired_card", "incorrect_cvc", "processing_error")
_SAID = {
    "authorized": "Payment complete.",
    "manual_review": "Payment complete; it is looked at by a person.",
    "issuer_declined": "The bank declined the payment.",
    "blocked": "The payment was blocked as too risky.",
    "invalid": "The card holder was not authenticated.",
}


@dataclass(frozen=True)
class Rows:
    """Makes the rows of one batch from what has become of its payments."""

    scope: Scope
    payments: Payments
    aftermath: Aftermath

    def intents(self, draws: Draws) -> pl.DataFrame:
        """Rows of `payment_intents`."""
        intents, charges = self.payments.intents, self.payments.charges
        latest = intents["latest"].replace(-1, None)
        word = draws.random.integers(2**63, size=intents.height).tolist()
        return intents.select(
            "id",
            "merchant_id",
            "customer_id",
            pl.col("method_id").alias("payment_method_id"),
            "invoice_id",
            "amount",
            pl.col("capturable").alias("amount_capturable"),
            pl.col("received").alias("amount_received"),
            "currency",
            "status",
            pl.when("by_hand").then(pl.lit("manual")).otherwise(pl.lit("automatic")).alias("capture_method"),
            pl.col("canceled").alias("cancellation_reason"),
            pl.when(pl.col("invoice") >= 0).then(pl.lit("off_session")).alias("setup_future_usage"),
            pl.Series("idempotency_key", [f"key_{number:016x}" for number in word], dtype=pl.String),
            charges["id"].gather(latest).alias("latest_charge_id"),
            charges["created"].gather(latest).alias("latest_charge_created"),
            pl.col("at").alias("created"),
        )

    def charges(self, draws: Draws) -> pl.DataFrame:
        """Rows of `charges`, in their end state: no trigger finds anything to change."""
        charges = self.payments.charges
        intents = self.payments.intents[charges["intent"]]
        count = charges.height
        refunded = np.zeros(count, dtype=np.int64)
        live = self.aftermath.refunds.filter(~pl.col("status").is_in(["failed", "canceled"]))
        np.add.at(refunded, live["charge"].to_numpy(), live["amount"].to_numpy())
        disputed = np.zeros(count, dtype=bool)
        disputed[self.aftermath.disputes["charge"].to_numpy()] = True
        origin = intents["origin"].to_numpy()
        decline = charges["decline"].to_numpy()
        code = pl.Series([None if at == APPROVED else DECLINE_CODES[at] for at in decline.tolist()], dtype=pl.String)
        captured = charges["captured"].to_numpy()
        return charges.select(
            "id",
            intents["merchant_id"],
            intents["customer_id"],
            intents["method_id"].alias("payment_method_id"),
            intents["id"].alias("payment_intent_id"),
            intents["amount"],
            pl.col("captured").alias("amount_captured"),
            pl.Series("amount_refunded", refunded),
            intents["currency"],
            pl.when("approved").then(pl.lit("succeeded")).otherwise(pl.lit("failed")).alias("status"),
            (pl.col("captured") > 0).alias("captured"),
            pl.col("approved").alias("paid"),
            pl.Series("refunded", (captured > 0) & (refunded == captured)),
            pl.Series("disputed", disputed),
            pl.select(
                pl.when(code.is_null())
                .then(None)
                .when(code.is_in(_OWN_FAILURE))
                .then(code)
                .otherwise(pl.lit("card_declined"))
            )
            .to_series()
            .alias("failure_code"),
            code.alias("decline_code"),
            addresses(origin, draws.happens(0.2, count) * draws.between(1, 8, count)).alias("ip"),
            devices(origin).alias("device_id"),
            _country(intents["shipping"]).alias("shipping_country"),
            _names(charges["three_d"], THREE_D).alias("three_d_secure_result"),
            pl.format('{{"order":"{}-{}"}}', intents["merchant"], "intent").alias("metadata"),
            "created",
        )

    def outcomes(self) -> pl.DataFrame:
        """Rows of `charge_outcomes`, one for each charge."""
        score, decline = pl.col("score"), pl.col("decline")
        level = (
            pl.when(score >= HIGHEST).then(pl.lit("highest")).when(score >= ELEVATED).then(pl.lit("elevated"))
            .otherwise(pl.lit("normal"))
        )  # fmt: skip
        looked_at = self.payments.charges.with_row_index("charge")["charge"].is_in(
            self.aftermath.reviews["charge"].to_list()
        )
        type_ = (
            pl.when(decline == BLOCKED).then(pl.lit("blocked")).when(decline == AUTHENTICATION).then(pl.lit("invalid"))
            .when(decline != APPROVED).then(pl.lit("issuer_declined")).when(looked_at).then(pl.lit("manual_review"))
            .otherwise(pl.lit("authorized"))
        )  # fmt: skip
        network = (
            pl.when(decline.is_in([BLOCKED, AUTHENTICATION])).then(pl.lit("not_sent_to_network"))
            .when(decline == APPROVED).then(pl.lit("approved_by_network")).otherwise(pl.lit("declined_by_network"))
        )  # fmt: skip
        reason = (
            pl.when(decline == BLOCKED).then(pl.lit("highest_risk_level"))
            .when(decline == APPROVED).then(pl.when(looked_at).then(pl.lit("elevated_risk_level")))
            .otherwise(_names(self.payments.charges["decline"], DECLINE_CODES))
        )  # fmt: skip
        return self.payments.charges.select(
            pl.col("id").alias("charge_id"),
            pl.col("created").alias("charge_created"),
            type_.alias("type"),
            network.alias("network_status"),
            reason.alias("reason"),
            level.alias("risk_level"),
            pl.col("score").alias("risk_score"),
            pl.when(decline == BLOCKED).then(pl.lit("block_if_highest_risk"))
            .when(looked_at).then(pl.lit("review_if_elevated_risk")).alias("rule_id"),
            type_.replace_strict(_SAID, return_dtype=pl.String).alias("seller_message"),
            pl.lit(MODEL_VERSION).alias("model_version"),
            "created",
        )  # fmt: skip

    def reviews(self) -> pl.DataFrame:
        """Rows of `reviews`."""
        reviews = self.aftermath.reviews
        origin = self.payments.intents["origin"].gather(self._charge(reviews)["intent"]).to_numpy()
        return reviews.select(
            "id",
            *self._named(reviews),
            pl.col("closed_reason").is_null().alias("open"),
            pl.lit("rule").alias("opened_reason"),
            "closed_reason",
            addresses(origin, np.zeros(len(origin), dtype=np.int64)).alias("ip"),
            _happened("closed_at"),
            pl.col("at").alias("created"),
        )

    def warnings(self) -> pl.DataFrame:
        """Rows of `early_fraud_warnings`."""
        warnings = self.aftermath.warnings
        answered = [self.aftermath.refunds["charge"].to_list(), self.aftermath.disputes["charge"].to_list()]
        return warnings.select(
            "id",
            *self._named(warnings),
            "fraud_type",
            (~pl.col("charge").is_in(sorted({*answered[0], *answered[1]}))).alias("actionable"),
            pl.col("at").alias("created"),
        )

    def refunds(self, moved: pl.DataFrame) -> pl.DataFrame:
        """Rows of `refunds`, each with the movement that gave the money back."""
        refunds = self.aftermath.refunds
        given = moved.filter(pl.col("kind") == "given").select(
            pl.col("source_id").alias("id"),
            pl.col("id").alias("balance_transaction_id"),
            pl.col("created").alias("balance_transaction_created"),
        )
        failed = pl.when(pl.col("status") == "failed")
        return refunds.select(
            "id",
            *self._named(refunds),
            "amount",
            self._intents(refunds)["currency"],
            "status",
            "reason",
            failed.then(pl.lit("lost_or_stolen_card")).alias("failure_reason"),
            pl.col("at").alias("created"),
        ).join(given, on="id", how="left", maintain_order="left")

    def disputes(self) -> pl.DataFrame:
        """Rows of `disputes`."""
        disputes = self.aftermath.disputes
        return disputes.select(
            "id",
            *self._named(disputes),
            "amount",
            self._intents(disputes)["currency"],
            "status",
            "reason",
            pl.col("code").alias("network_reason_code"),
            pl.col("inquiry").alias("is_charge_refundable"),
            pl.col("due_by").alias("evidence_due_by"),
            _happened("submitted_at").alias("evidence_submitted_at"),
            pl.col("at").alias("created"),
        )

    def dispute_movements(self, moved: pl.DataFrame) -> pl.DataFrame:
        """Rows of `dispute_balance_transactions`."""
        return moved.filter(pl.col("kind").is_in(["withdrawn", "reinstated"])).select(
            pl.col("source_id").alias("dispute_id"),
            "kind",
            pl.col("id").alias("balance_transaction_id"),
            pl.col("created").alias("balance_transaction_created"),
            "created",
        )

    def _charge(self, followers: pl.DataFrame) -> pl.DataFrame:
        return self.payments.charges[followers["charge"]]

    def _intents(self, followers: pl.DataFrame) -> pl.DataFrame:
        return self.payments.intents[self._charge(followers)["intent"]]

    def _named(self, followers: pl.DataFrame) -> list[pl.Series]:
        charge = self._charge(followers)
        return [charge["id"].alias("charge_id"), charge["created"].alias("charge_created")]


def payout_rows(scope: Scope, paid_out: PaidOut) -> pl.DataFrame:
    """Rows of `payouts`."""
    payouts = paid_out.payouts
    arrived = pl.col("status").is_in(["paid", "failed"])
    return payouts.select(
        "id",
        scope.merchant_ids(payouts["merchant"]).alias("merchant_id"),
        pl.col("movement_id").alias("balance_transaction_id"),
        pl.col("created").alias("balance_transaction_created"),
        "amount",
        scope.currencies(payouts["merchant"].to_numpy()).alias("currency"),
        "status",
        pl.col("arrives").cast(pl.Datetime("us", "UTC")).dt.date().alias("arrival_date"),
        pl.col("failure").alias("failure_code"),
        pl.when(arrived).then(pl.lit("completed")).otherwise(pl.lit("in_progress")).alias("reconciliation_status"),
        "created",
    )


def _happened(moment: str) -> pl.Expr:
    return pl.when(pl.col(moment) >= 0).then(pl.col(moment)).alias(moment)


def _names(places: pl.Series, names: tuple[str, ...]) -> pl.Series:
    return pl.Series([None if place < 0 else names[place] for place in places.to_list()], dtype=pl.String)


def _country(number: pl.Series) -> pl.Series:
    codes = [*catalogue.COUNTRY_CODES.tolist(), None]
    return pl.Series([codes[place] for place in number.to_list()], dtype=pl.String)
