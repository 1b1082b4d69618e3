"""Which history: its arguments, and the random numbers that follow from them alone."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import polars as pl

from stripe_platform.oltp.keys import uuid_v7_keys

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Moments and durations are microseconds, moments since 1970.
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# Columns of the payments tables that hold moments.
_MOMENTS = frozenset(
    {
        "available_on",
        "balance_transaction_created",
        "cancel_at",
        "canceled_at",
        "charge_created",
        "closed_at",
        "created",
        "current_period_end",
        "current_period_start",
        "deleted_at",
        "due_date",
        "ended_at",
        "evidence_due_by",
        "evidence_submitted_at",
        "finalized_at",
        "latest_charge_created",
        "paid_at",
        "period_end",
        "period_start",
        "start_date",
        "trial_end",
    }
)


class Purpose(IntEnum):
    """What a stream of random numbers is for: a draw more for one of them leaves the others as they are."""

    POPULATION = 0
    FRAUD = 1
    MERCHANTS = 2
    BILLING = 3
    PAYMENTS = 4
    AFTERMATH = 5
    MONEY = 6
    EVENTS = 7
    CUSTOMERS = 8
    SHOP = 9


@dataclass(frozen=True)
class Run:
    """A history of so many payments over the days before `until` (its first instant, UTC, is the first not told)."""

    payments: int
    days: int
    seed: int
    until: date

    @property
    def end(self) -> int:
        """The moment before which everything has happened."""
        midnight = datetime(self.until.year, self.until.month, self.until.day, tzinfo=UTC)
        return int(midnight.timestamp()) * SECOND

    @property
    def start(self) -> int:
        """The moment of the first payment, at the earliest."""
        return self.end - self.days * DAY

    @property
    def first_instant(self) -> datetime:
        """`start` as a datetime."""
        return datetime.fromtimestamp(self.start // SECOND, UTC)

    @property
    def last_instant(self) -> datetime:
        """`end` as a datetime, less a moment."""
        return datetime.fromtimestamp(self.end // SECOND, UTC) - timedelta(microseconds=1)

    def draws(self, purpose: Purpose, batch: int = 0) -> "Draws":
        """The random numbers of one purpose and batch of this run; no two runs share any."""
        return Draws(np.random.default_rng([self.seed, self.payments, self.days, self.end // DAY, purpose, batch]))


@dataclass(frozen=True)
class Draws:
    """A stream of random numbers, in the shapes that the simulator asks for."""

    random: np.random.Generator

    def happens(self, chance: float | Floats, count: int) -> Flags:
        """True with the chance given."""
        return self.random.random(count) < chance

    def between(self, low: float | Ints, high: float | Ints, count: int) -> Ints:
        """Whole numbers, evenly, `low` ≤ number < `high`."""
        return np.asarray(low + self.random.random(count) * (np.asarray(high) - low)).astype(np.int64)

    def pick(self, weights: tuple[float, ...] | Floats, count: int) -> Ints:
        """Places in `weights`, as often as they weigh."""
        sums = np.cumsum(np.asarray(weights, dtype=float))
        return np.asarray(
            np.searchsorted(sums, self.random.random(count) * sums[-1], side="right").clip(0, len(sums) - 1)
        )

    def keys(self, moments: pl.Series) -> pl.Series:
        """A uuid of version 7 for each moment."""
        return uuid_v7_keys(
            moments.cast(pl.Datetime("us", "UTC")), pl.int_range(moments.len(), eager=True), self.random
        )


def mixed(numbers: Ints, salt: int) -> npt.NDArray[np.uint64]:
    """A number without pattern for each number (the finalizer of splitmix64): the same number, the same result."""
    word = numbers.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ word >> np.uint64(shift)) * np.uint64(factor)
    return word ^ word >> np.uint64(31)


def with_times(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its moments as times in UTC."""
    return frame.with_columns(pl.col(name).cast(pl.Datetime("us", "UTC")) for name in frame.columns if name in _MOMENTS)
