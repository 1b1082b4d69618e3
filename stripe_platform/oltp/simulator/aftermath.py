"""What comes after a payment, days and weeks later: reviews, warnings of the card networks, refunds and disputes.

What would come after the end of the run has not happened.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator.fraud import Kind
from stripe_platform.oltp.simulator.payments import ELEVATED, Payments
from stripe_platform.oltp.simulator.run import DAY, HOUR, MINUTE, Draws, Flags, Ints
from stripe_platform.oltp.simulator.scope import Scope

_NOTICED = 0.88
_WARNED = 0.6
_DISPUTED = 0.7
_DAYS_UNTIL_NOTICED = 7.0
_LONGEST_UNNOTICED = 30
_REFUNDED_AFTER_WARNING = 0.4
_REFUNDED = 0.04
_IN_PART = 0.3
_SECOND_PART = 0.2
_REFUND_FAILS = 0.02
_REFUND_CANCELED = 0.005
_CONTESTED = 0.0015
_INQUIRY = 0.1
_WON = 0.4
_ANSWERED = 0.6
# (reason, how often an honest payer gives it, the card network's code).
_REASONS = (
    ("fraudulent", 0.30, "10.4"),
    ("product_not_received", 0.22, "13.1"),
    ("product_unacceptable", 0.14, "13.3"),
    ("subscription_canceled", 0.08, "13.2"),
    ("credit_not_processed", 0.08, "13.6"),
    ("duplicate", 0.06, "12.6"),
    ("unrecognized", 0.06, "10.4"),
    ("general", 0.06, None),
)
_WARNINGS = ("unauthorized_use_of_card", "made_with_stolen_card", "made_with_lost_card", "misc")
_WARNING_WEIGHTS = (0.6, 0.25, 0.05, 0.1)
_REASON_WEIGHTS = tuple(share for _, share, _ in _REASONS)
_REFUND_REASONS = ("requested_by_customer", "duplicate", "fraudulent")
FRAUDULENT = 2


@dataclass(frozen=True)
class Aftermath:
    """Each with `charge`, its place, `id` and `at`; moments that have not come are -1.

    `reviews`: closed_at, closed_reason. `warnings`: fraud_type. `refunds`: amount, status, reason, failed_at.
    `disputes`: amount, reason, code, status, due_by, submitted_at, closed_at, won, inquiry.
    """

    reviews: pl.DataFrame
    warnings: pl.DataFrame
    refunds: pl.DataFrame
    disputes: pl.DataFrame


def follow(scope: Scope, draws: Draws, payments: Payments) -> Aftermath:
    """All that the captured charges of the batch have led to by the end of the run."""
    end = scope.run.end
    charges = payments.charges
    place = np.flatnonzero(charges["captured"].to_numpy() > 0)
    at = charges["captured_at"].to_numpy()[place]
    honest = payments.intents["kind"].to_numpy()[charges["intent"].to_numpy()[place]] == Kind.HONEST
    reviews = _reviews(draws, charges, honest_of=_spread(honest, place, charges.height), end=end)
    sent_back = np.isin(place, reviews.filter(pl.col("closed_reason") == "refunded_as_fraud")["charge"].to_numpy())
    noticed = ~honest & ~sent_back & draws.happens(_NOTICED, len(place))
    days = np.clip(draws.random.lognormal(np.log(_DAYS_UNTIL_NOTICED), 0.6, len(place)), 1, _LONGEST_UNNOTICED - 5)
    label_at = at + (days * DAY).astype(np.int64)
    warned = noticed & draws.happens(_WARNED, len(place))
    disputed = noticed & (~warned | draws.happens(_DISPUTED, len(place)))
    dispute_at = label_at + np.where(warned, draws.between(HOUR, 5 * DAY, len(place)), 0)
    contested = honest & ~sent_back & draws.happens(_CONTESTED, len(place))
    dispute_at = np.where(contested, at + draws.between(4 * DAY, 45 * DAY, len(place)), dispute_at)
    comes = (disputed | contested) & (dispute_at < end)
    warnings = _warnings(draws, place[warned & (label_at < end)], label_at[warned & (label_at < end)])
    disputes = _disputes(scope, draws, payments, place[comes], dispute_at[comes], honest=contested[comes])
    settled = sent_back | disputed | contested
    back = warned & ~settled & draws.happens(_REFUNDED_AFTER_WARNING, len(place))
    refunds = _refunds(scope, draws, payments, place, at, refundable=~settled & ~back)
    known = reviews.filter(pl.col("closed_reason") == "refunded_as_fraud").select("charge", at="closed_at")
    known = pl.concat([known, pl.DataFrame({"charge": place[back], "at": label_at[back] + 4 * HOUR})])
    refunds = pl.concat([refunds, _for_fraud(payments, known.filter(pl.col("at") < end))]).sort("at", "charge")
    return Aftermath(
        *(frame.with_columns(id=draws.keys(frame["at"])) for frame in (reviews, warnings, refunds, disputes))
    )


def _spread(values: Flags, place: Ints, count: int) -> Flags:
    spread = np.zeros(count, dtype=bool)
    spread[place] = values
    return spread


def _reviews(draws: Draws, charges: pl.DataFrame, honest_of: Flags, end: int) -> pl.DataFrame:
    """Each approved charge that looks odd is looked at by a person within a day, who is right more often than not."""
    looked_at = (
        (charges["score"] >= ELEVATED) & (charges["captured"] > 0) & (charges["captured_at"] == charges["created"])
    )
    place = np.flatnonzero(looked_at.to_numpy())
    at = charges["created"].to_numpy()[place]
    closed_at = at + draws.between(10 * MINUTE, DAY, len(place))
    refused = draws.happens(np.where(honest_of[place], 0.05, 0.5), len(place))
    closed = closed_at < end
    reason = pl.Series(np.where(refused, "refunded_as_fraud", "approved"), dtype=pl.String)
    return pl.DataFrame(
        {
            "charge": place,
            "at": at,
            "closed_at": np.where(closed, closed_at, -1),
            "closed_reason": reason.set(pl.Series(~closed), None),
        }
    )


def _warnings(draws: Draws, place: Ints, at: Ints) -> pl.DataFrame:
    kinds = np.array(_WARNINGS)[draws.pick(_WARNING_WEIGHTS, len(place))]
    return pl.DataFrame({"charge": place, "at": at, "fraud_type": pl.Series(kinds, dtype=pl.String)}).sort(
        "at", "charge"
    )


def _disputes(scope: Scope, draws: Draws, payments: Payments, place: Ints, at: Ints, *, honest: Flags) -> pl.DataFrame:
    count, end = len(place), scope.run.end
    reason = np.where(honest, draws.pick(_REASON_WEIGHTS, count), 0)
    inquiry = honest & draws.happens(_INQUIRY, count)
    due_by = at + draws.between(9 * DAY, 21 * DAY, count)
    answered = draws.happens(_ANSWERED, count)
    answered_at = at + draws.between(DAY, 8 * DAY, count)
    closed_at = np.where(answered, answered_at + draws.between(10 * DAY, 50 * DAY, count), due_by)
    won = answered & ~inquiry & draws.happens(np.where(honest, _WON, _WON / 3), count)
    answered, closed = answered & (answered_at < end), closed_at < end
    waiting = np.where(answered, "under_review", "needs_response")
    final = np.where(inquiry, "warning_closed", np.where(won, "won", "lost"))
    prefix = np.where(inquiry & ~closed, "warning_", "")
    return pl.DataFrame(
        {
            "charge": place,
            "at": at,
            "amount": payments.charges["captured"].to_numpy()[place],
            "reason": pl.Series([_REASONS[number][0] for number in reason.tolist()], dtype=pl.String),
            "code": pl.Series([_REASONS[number][2] for number in reason.tolist()], dtype=pl.String),
            "status": pl.Series(np.char.add(prefix, np.where(closed, final, waiting)).tolist(), dtype=pl.String),
            "due_by": due_by,
            "submitted_at": np.where(answered, answered_at, -1),
            "closed_at": np.where(closed, closed_at, -1),
            "won": won & closed,
            "inquiry": inquiry,
        }
    ).sort("at", "charge")


def _refunds(
    scope: Scope, draws: Draws, payments: Payments, place: Ints, at: Ints, *, refundable: Flags
) -> pl.DataFrame:
    """Of goods sent back, in full or in part; a few parts are followed by another."""
    chosen = refundable & draws.happens(_REFUNDED, len(place))
    place, at, count = place[chosen], at[chosen], int(chosen.sum())
    captured = payments.charges["captured"].to_numpy()[place]
    multiple = scope.multiple(payments.intents["merchant"].to_numpy()[payments.charges["intent"].to_numpy()[place]])
    in_part = draws.happens(_IN_PART, count)
    part = np.maximum((captured * (0.2 + 0.3 * draws.random.random(count)) / multiple).astype(np.int64), 1) * multiple
    first_at = at + draws.between(HOUR, 25 * DAY, count)
    again = in_part & draws.happens(_SECOND_PART, count) & (captured >= 2 * part)
    reason = draws.pick((0.92, 0.08), count)
    refunds = pl.DataFrame(
        {
            "charge": np.concatenate([place, place[again]]),
            "at": np.concatenate([first_at, first_at[again] + draws.between(HOUR, 5 * DAY, int(again.sum()))]),
            "amount": np.concatenate([np.where(in_part, part, captured), part[again]]),
            "reason": pl.Series(
                [_REFUND_REASONS[number] for number in np.concatenate([reason, reason[again]]).tolist()],
                dtype=pl.String,
            ),
        }
    )
    return _outcomes(scope, draws, refunds.filter(pl.col("at") < scope.run.end))


def _outcomes(scope: Scope, draws: Draws, refunds: pl.DataFrame) -> pl.DataFrame:
    fate = draws.pick((1 - _REFUND_FAILS - _REFUND_CANCELED, _REFUND_FAILS, _REFUND_CANCELED), refunds.height)
    failed_at = refunds["at"].to_numpy() + draws.between(DAY, 5 * DAY, refunds.height)
    failed = (fate == 1) & (failed_at < scope.run.end)
    recent = refunds["at"].to_numpy() + DAY > scope.run.end
    status = np.where(failed, "failed", np.where(fate == 2, "canceled", np.where(recent, "pending", "succeeded")))
    return refunds.with_columns(
        status=pl.Series(status, dtype=pl.String), failed_at=pl.Series(np.where(failed, failed_at, -1))
    )


def _for_fraud(payments: Payments, known: pl.DataFrame) -> pl.DataFrame:
    """All of it given back at once when a merchant learns of a fraud before the card holder disputes it."""
    return known.select(
        "charge",
        "at",
        payments.charges["captured"].gather(known["charge"]).alias("amount"),
        pl.lit(_REFUND_REASONS[FRAUDULENT]).alias("reason"),
        pl.lit("succeeded").alias("status"),
        pl.lit(-1, dtype=pl.Int64).alias("failed_at"),
    )
