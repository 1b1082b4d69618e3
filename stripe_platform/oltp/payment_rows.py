"""What one payment becomes: rows of charges, the ledger, disputes and the record of the import."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from stripe_platform.oltp import parties
from stripe_platform.oltp.fees import DISPUTE_FEE, charge_fee_expression
from stripe_platform.oltp.keys import uuid_v7_keys
from stripe_platform.oltp.payments_file import content_hashes

Rows = list[tuple[str, pl.DataFrame]]
"""(table, its rows) in an order in which they can be inserted."""

_KINDS = ("merchant", "customer", "payment_method")
_IDS = {"kind": pl.String, "ref": pl.String, "id": pl.String}
_AVAILABLE_AFTER = pl.duration(days=2)


def no_parties() -> pl.DataFrame:
    """An empty table of `kind, ref, id`."""
    return pl.DataFrame(schema=_IDS)


@dataclass
class RowMaker:
    """Turns batches of good payments into rows, and remembers the parties it has met.

    `known` holds `kind, ref, id` of every party imported before; `first_seen` holds `kind, ref, created`,
    the time of the first payment of each merchant and customer of the file.
    """

    known: pl.DataFrame
    first_seen: pl.DataFrame
    _last_instant: object = field(default=None, init=False)
    _rows_of_last_instant: int = field(default=0, init=False)

    def rows(self, payments: pl.DataFrame) -> Rows:
        """All rows of a batch; keys follow the time of the payment, then its place in the file."""
        new_parties = self._meet("merchant", payments) + self._meet("customer", payments)
        made = self._charges(payments)
        disputed = made.filter(pl.col("fraud_reported_at").is_not_null())
        disputed = disputed.with_columns(
            dispute_id=uuid_v7_keys(disputed["fraud_reported_at"], _row_numbers(disputed)),
            entry_id=uuid_v7_keys(disputed["fraud_reported_at"], _row_numbers(disputed)),
        )
        return [
            *new_parties,
            ("charges", _charge_rows(made)),
            ("balance_transactions", pl.concat([_charge_entries(made), _dispute_entries(disputed)])),
            ("disputes", _dispute_rows(disputed)),
            ("dispute_balance_transactions", _withdrawal_rows(disputed)),
            ("imported_payments", _record_rows(made)),
        ]

    def _meet(self, kind: str, payments: pl.DataFrame) -> Rows:
        known = self.known.filter(pl.col("kind") == kind).select("ref")
        new = (
            payments.select("currency", ref=f"{kind}_ref")
            .unique("ref", keep="first", maintain_order=True)
            .join(known, on="ref", how="anti", maintain_order="left")
            .join(self.first_seen.filter(pl.col("kind") == kind), on="ref", maintain_order="left")
        )
        if new.is_empty():
            return []
        new = new.with_columns(id=uuid_v7_keys(new["created"], _row_numbers(new)))
        ids = [new.select(pl.lit(kind).alias("kind"), "ref", "id")]
        if kind == "merchant":
            rows: Rows = [("merchants", parties.merchant_rows(new))]
        else:
            new = new.with_columns(payment_method_id=uuid_v7_keys(new["created"], _row_numbers(new)))
            ids.append(new.select(pl.lit("payment_method").alias("kind"), "ref", id="payment_method_id"))
            rows = [
                ("customers", parties.customer_rows(new)),
                ("card_fingerprints", parties.card_rows(new)),
                ("payment_methods", parties.payment_method_rows(new)),
            ]
        self.known = pl.concat([self.known, *ids])
        return [*rows, ("imported_parties", pl.concat(ids))]

    def _charges(self, payments: pl.DataFrame) -> pl.DataFrame:
        order = self._order(payments["occurred_at"])
        made = payments.with_columns(
            id=uuid_v7_keys(payments["occurred_at"], order),
            entry_id=uuid_v7_keys(payments["occurred_at"], order),
        )
        for kind in _KINDS:
            ref = "merchant_ref" if kind == "merchant" else "customer_ref"
            ids = self.known.filter(pl.col("kind") == kind).select(
                pl.col("ref").alias(ref), pl.col("id").alias(f"{kind}_id")
            )
            made = made.join(ids, on=ref, how="left", maintain_order="left")
        return made

    def _order(self, times: pl.Series) -> pl.Series:
        """Each row's place among the rows of its instant, counted on from the batch before."""
        frame = pl.DataFrame({"time": times})
        place = frame.select(pl.int_range(pl.len()).over("time")).to_series()
        if times[0] == self._last_instant:
            going_on = times == self._last_instant
            place = place + going_on.cast(pl.Int64) * self._rows_of_last_instant
        self._last_instant = times[-1]
        self._rows_of_last_instant = int(place[-1]) + 1
        return place


def _row_numbers(frame: pl.DataFrame) -> pl.Series:
    return pl.int_range(frame.height, eager=True)


def _charge_rows(made: pl.DataFrame) -> pl.DataFrame:
    return made.select(
        "id",
        "merchant_id",
        "customer_id",
        "payment_method_id",
        "amount",
        pl.col("amount").alias("amount_captured"),
        "currency",
        pl.lit("succeeded").alias("status"),
        pl.lit(True).alias("captured"),
        pl.lit(True).alias("paid"),
        # As the trigger on disputes would set it, without a second version of the row.
        pl.col("fraud_reported_at").is_not_null().alias("disputed"),
        pl.col("occurred_at").alias("created"),
    )


def _charge_entries(made: pl.DataFrame) -> pl.DataFrame:
    available_on = pl.col("occurred_at") + _AVAILABLE_AFTER
    return made.with_columns(fee=charge_fee_expression(pl.col("amount"))).select(
        pl.col("entry_id").alias("id"),
        "merchant_id",
        "amount",
        "fee",
        (pl.col("amount") - pl.col("fee")).alias("net"),
        "currency",
        pl.lit("charge").alias("type"),
        pl.lit("charge").alias("reporting_category"),
        _availability(available_on),
        available_on.alias("available_on"),
        pl.lit("charge").alias("source_type"),
        pl.col("id").alias("source_id"),
        pl.col("occurred_at").alias("created"),
    )


def _dispute_entries(disputed: pl.DataFrame) -> pl.DataFrame:
    reported_at = pl.col("fraud_reported_at")
    return disputed.select(
        pl.col("entry_id").alias("id"),
        "merchant_id",
        -pl.col("amount"),
        pl.lit(DISPUTE_FEE, dtype=pl.Int64).alias("fee"),
        (-pl.col("amount") - DISPUTE_FEE).alias("net"),
        "currency",
        pl.lit("adjustment").alias("type"),
        pl.lit("dispute").alias("reporting_category"),
        _availability(reported_at),
        reported_at.alias("available_on"),
        pl.lit("dispute").alias("source_type"),
        pl.col("dispute_id").alias("source_id"),
        reported_at.alias("created"),
    )


def _availability(available_on: pl.Expr) -> pl.Expr:
    due = available_on <= datetime.now(UTC)
    return pl.when(due).then(pl.lit("available")).otherwise(pl.lit("pending")).alias("status")


def _dispute_rows(disputed: pl.DataFrame) -> pl.DataFrame:
    return disputed.select(
        pl.col("dispute_id").alias("id"),
        pl.col("id").alias("charge_id"),
        pl.col("occurred_at").alias("charge_created"),
        "amount",
        "currency",
        pl.lit("needs_response").alias("status"),
        pl.lit("fraudulent").alias("reason"),
        pl.col("fraud_reported_at").alias("created"),
    )


def _withdrawal_rows(disputed: pl.DataFrame) -> pl.DataFrame:
    return disputed.select(
        "dispute_id",
        pl.lit("withdrawn").alias("kind"),
        pl.col("entry_id").alias("balance_transaction_id"),
        pl.col("fraud_reported_at").alias("balance_transaction_created"),
        pl.col("fraud_reported_at").alias("created"),
    )


def _record_rows(made: pl.DataFrame) -> pl.DataFrame:
    return made.select(
        "payment_ref",
        (pl.lit("\\x") + content_hashes(made)).alias("content_hash"),
        pl.col("id").alias("charge_id"),
        pl.col("occurred_at").alias("charge_created"),
    )
