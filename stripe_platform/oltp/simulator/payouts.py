"""What merchants are paid out: all that is available when the day comes, as long as it is more than nothing."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator.run import DAY, HOUR, MINUTE, Draws, Flags, Ints
from stripe_platform.oltp.simulator.scope import Scope

_ARRIVES_AFTER = 2 * DAY
_FAILS = 0.008
_FAILURES = ("account_closed", "could_not_process", "no_account")
_NONE = -1


@dataclass(frozen=True)
class PaidOut:
    """`payouts`: merchant, id, created, amount, arrives, status, failure, movement_id. `movements`: those of the
    payouts themselves, in the columns of the ledger. `of_movement`: for each movement of the batch the payout that
    paid it out, or null.
    """

    payouts: pl.DataFrame
    movements: pl.DataFrame
    of_movement: pl.Series


@dataclass
class _Cut:
    """One payout of a merchant: how many of the movements, in order of availability, are paid out after it."""

    merchant: int
    at: int
    amount: int
    fails: bool


def payable(net: list[int], multiple: int) -> int:
    """How many of the movements, from the first on, can be paid out together.

    The most whose sum is more than nothing, a multiple of what the currency is paid out in, and no more than all of
    them together: the balance never falls below nothing by a payout.
    """
    sums = np.cumsum(net)
    fits = np.flatnonzero((sums > 0) & (sums % multiple == 0) & (sums <= (sums[-1] if len(sums) else 0)))
    return int(fits[-1]) + 1 if len(fits) else 0


def pay_out(scope: Scope, draws: Draws, moved: pl.DataFrame) -> PaidOut:
    """The payouts of the merchants in scope: daily or each Monday, in the hour after midnight UTC."""
    payout_of = np.full(moved.height, _NONE, dtype=np.int64)
    order = np.lexsort((moved["created"].to_numpy(), moved["available_on"].to_numpy(), moved["merchant"].to_numpy()))
    merchant = moved["merchant"].to_numpy()[order]
    bounds = np.searchsorted(merchant, np.arange(scope.first, scope.end + 1))
    available = moved["available_on"].to_numpy()[order]
    net = (moved["amount"] - moved["fee"]).to_numpy()[order]
    cuts: list[_Cut] = []
    regained: list[tuple[int, int]] = []
    for number, weekly in enumerate(scope.merchants["weekly"].to_list()):
        low, high = int(bounds[number]), int(bounds[number + 1])
        books = _Books(scope.first + number, available[low:high], net[low:high])
        taken = books.close(scope, draws, weekly, cuts, regained)
        payout_of[order[low:high]] = taken
    return _frames(scope, draws, moved.columns, cuts, regained=regained, payout_of=payout_of)


@dataclass
class _Books:
    """The movements of one merchant in the order in which they become available."""

    merchant: int
    available: Ints
    net: Ints

    def close(
        self, scope: Scope, draws: Draws, weekly: bool, cuts: list[_Cut], regained: list[tuple[int, int]]
    ) -> Ints:
        """Add the merchant's payouts to `cuts` and, for one that fails, (its place, the place of the payout that pays
        the money again) to `regained`; return the place of each movement's payout.
        """
        taken = np.full(len(self.net), _NONE, dtype=np.int64)
        # The country's number is in the population; its currency may be paid out in steps only.
        multiple = int(scope.multiple(np.array([self.merchant]))[0])
        # Each merchant at a minute of their own; what comes before that minute is counted.
        days = _days(scope, weekly) + int(draws.between(MINUTE, HOUR, 1)[0])
        ready = np.searchsorted(self.available, days, side="right").tolist()
        paid = 0
        waiting: list[int] = []
        for day, until in zip(days.tolist(), ready, strict=True):
            back = [place for place in waiting if cuts[place].at + _ARRIVES_AFTER + DAY <= day]
            count = payable([*(cuts[place].amount for place in back), *self.net[paid:until].tolist()], multiple)
            if count <= len(back):
                continue
            waiting = [place for place in waiting if place not in back]
            regained += [(place, len(cuts)) for place in back]
            end = paid + count - len(back)
            amount = int(self.net[paid:end].sum()) + sum(cuts[place].amount for place in back)
            taken[paid:end] = len(cuts)
            paid = end
            fails = bool(draws.random.random() < _FAILS)
            if fails:
                waiting.append(len(cuts))
            cuts.append(_Cut(self.merchant, day, amount, fails))
        regained += [(place, _NONE) for place in waiting]
        return taken


def _days(scope: Scope, weekly: bool) -> Ints:
    days = np.arange(scope.run.start, scope.run.end, DAY)
    monday: Flags = (days // DAY + 3) % 7 == 0
    return days[monday] if weekly else days


def _frames(
    scope: Scope,
    draws: Draws,
    columns: list[str],
    cuts: list[_Cut],
    *,
    regained: list[tuple[int, int]],
    payout_of: Ints,
) -> PaidOut:
    end = scope.run.end
    created = np.array([cut.at for cut in cuts], dtype=np.int64)
    arrives = created // DAY * DAY + _ARRIVES_AFTER
    fails = np.array([cut.fails for cut in cuts], dtype=bool)
    failed, paid = fails & (arrives + DAY < end), arrives < end
    reasons = np.array(_FAILURES)[draws.between(0, len(_FAILURES), len(cuts))]
    status = np.where(failed, "failed", np.where(paid, "paid", "in_transit"))
    payouts = pl.DataFrame(
        {
            "merchant": pl.Series([cut.merchant for cut in cuts], dtype=pl.Int64),
            "created": created,
            "amount": pl.Series([cut.amount for cut in cuts], dtype=pl.Int64),
            "arrives": arrives,
            "status": pl.Series(status, dtype=pl.String),
            "failure": pl.Series(reasons, dtype=pl.String).set(pl.Series(~failed), None),
        }
    )
    payouts = payouts.with_columns(id=draws.keys(payouts["created"]), movement_id=draws.keys(payouts["created"]))
    out = payouts.select(
        "merchant",
        amount=-pl.col("amount"),
        id="movement_id",
        created="created",
        source_id="id",
        available_on="created",
    ).with_columns(type=pl.lit("payout"), reporting_category=pl.lit("payout"), payout_id=pl.lit(None, dtype=pl.String))
    movements = pl.concat([out, _back(payouts, failed, regained, draws)]).with_columns(
        fee=pl.lit(0, dtype=pl.Int64), source_type=pl.lit("payout"), kind=pl.lit("payout")
    )
    of_movement = payouts["id"].gather(pl.Series(payout_of).replace(_NONE, None))
    return PaidOut(payouts, movements.select(*columns, "payout_id"), of_movement)


def _back(payouts: pl.DataFrame, failed: Flags, regained: list[tuple[int, int]], draws: Draws) -> pl.DataFrame:
    """The money of failed payouts, in the balance again, and the payout that it leaves by."""
    again = dict(regained)
    place = np.flatnonzero(failed)
    by = pl.Series([again[number] for number in place.tolist()], dtype=pl.Int64).replace(_NONE, None)
    lost = payouts[place]
    at = lost["arrives"] + DAY
    return lost.select(
        "merchant",
        "amount",
        draws.keys(at).alias("id"),
        at.alias("created"),
        pl.col("id").alias("source_id"),
        at.alias("available_on"),
        pl.lit("payout_failure").alias("type"),
        pl.lit("payout_reversal").alias("reporting_category"),
        payouts["id"].gather(by).alias("payout_id"),
    )
