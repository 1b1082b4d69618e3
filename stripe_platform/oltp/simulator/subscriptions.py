"""Who subscribes to what, and when the periods of a subscription begin."""

from dataclasses import dataclass, field

import numpy as np

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.rhythm import LAST_TRIES
from stripe_platform.oltp.simulator.run import DAY, MINUTE, Draws, Flags, Ints
from stripe_platform.oltp.simulator.scope import Scope

FIRST_TRIES_WITHIN = LAST_TRIES
"""The payer of a first invoice is there, and tries again at once or not at all."""

_OF_QUOTA = 0.6
_TRIALS = 0.3
_TRIAL = 14 * DAY
_INTERVAL_WEIGHTS = (0.75, 0.13, 0.12)
_MONTHS = np.array([1, 12, 0])


@dataclass
class Subscriptions:
    """The subscriptions, column by column."""

    merchant: Ints
    customer: Ints
    start: Ints
    trial: Flags
    interval: Ints
    product: Ints
    anchor: Ints = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.start)
        self.product = self.product.copy()
        self.anchor = np.where(self.trial, self.start + _TRIAL, self.start)
        self.alive = np.ones(count, dtype=bool)
        self.period_start, self.period_end = self.start.copy(), self.anchor.copy()
        self.canceled_at, self.cancel_at, self.ended_at = (np.full(count, -1) for _ in range(3))
        self.status = np.where(self.trial, "trialing", "active").astype(object)


def subscribe(scope: Scope, draws: Draws) -> Subscriptions:
    """Some of the customers of the merchants in scope who sell by subscription, each once."""
    run = scope.run
    recurring = np.array([known.recurring for known in catalogue.CATEGORIES])[scope.merchants["category"].to_numpy()]
    customers = np.diff(scope.first_customer)
    a_month, _, a_week = _INTERVAL_WEIGHTS
    each = a_month * (run.days / 60 + 0.6) + a_week * (run.days / 14 + 0.6) + 0.13
    wanted = np.minimum(scope.merchants["quota"].to_numpy() * _OF_QUOTA / each, customers * 0.9).astype(np.int64)
    wanted = np.where(recurring, wanted, 0)
    order = np.lexsort((draws.random.random(int(customers.sum())), scope.customers["merchant"].to_numpy()))
    place = np.arange(len(order)) - np.repeat(np.cumsum(customers) - customers, customers)
    chosen = order[place < np.repeat(wanted, customers)]
    joined = np.maximum(scope.customers["created"].to_numpy()[chosen], run.start) + MINUTE
    last = run.end - FIRST_TRIES_WITHIN - MINUTE
    count = len(chosen)
    start = draws.between(np.minimum(joined, last - 1), last, count)
    merchant = scope.customers["merchant"].to_numpy()[chosen]
    return Subscriptions(
        merchant=merchant,
        customer=scope.customers["number"].to_numpy()[chosen],
        start=np.maximum(start, joined),
        trial=draws.happens(_TRIALS, count),
        interval=draws.pick(_INTERVAL_WEIGHTS, count),
        product=np.minimum(draws.pick((0.7, 0.2, 0.1), count), dearest(scope, merchant)),
    )


def dearest(scope: Scope, merchant: Ints) -> Ints:
    """The number of each merchant's last product."""
    category = scope.population.merchants["category"].to_numpy()[merchant]
    return np.asarray(np.array([len(known.products) - 1 for known in catalogue.CATEGORIES])[category])


def later(anchor: Ints, interval: Ints, periods: int) -> Ints:
    """So many intervals later; where a month has no such day, its last."""
    moment = anchor.astype("datetime64[us]")
    day, month = moment.astype("datetime64[D]"), moment.astype("datetime64[M]")
    then = month + _MONTHS[interval] * periods
    days = (then + 1).astype("datetime64[D]") - then.astype("datetime64[D]")
    place = np.minimum(day - month.astype("datetime64[D]"), days - np.timedelta64(1, "D"))
    by_month = (then.astype("datetime64[D]") + place + (moment - day)).astype(np.int64)
    return np.where(_MONTHS[interval] > 0, by_month, anchor + 7 * DAY * periods)
