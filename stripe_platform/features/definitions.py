"""Every feature, once: what the online read computes, and what the offline build makes its SQL of."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from stripe_platform.features.payments import Entity
from stripe_platform.features.windows import DAY, HOUR, Window

OWNER = "team:fraud"

LAST_HOUR = Window("1h", HOUR)
LAST_DAY = Window("24h", DAY)
LAST_WEEK = Window("7d", 7 * DAY)
LAST_MONTH = Window("30d", 30 * DAY)
WINDOWS = (LAST_HOUR, LAST_DAY, LAST_WEEK, LAST_MONTH)

# A report of fraud takes days to come. Younger payments would look honest only because nobody has spoken yet.
LABEL_DELAY = 7 * DAY
LABELLED_WINDOWS = tuple(
    Window(window.name, window.length, LABEL_DELAY) for window in (LAST_DAY, LAST_WEEK, LAST_MONTH)
)


class Aggregation(StrEnum):
    """What is made of the payments in a window; the value is the middle of the feature's name.

    P below is the payments of the entity in the window, as_of = (t, id) the place from which it is read. P always
    holds the payment being scored, for it is at as_of. What became of that payment is not known then, so `DECLINED`
    and `FRAUD_RATE` never count it.
    """

    PAYMENTS = "payments"
    DECLINED = "declined"
    AMOUNT_SUM = "amount_sum"
    AMOUNT_MEAN = "amount_mean"
    DISTINCT_MERCHANTS = "distinct_merchants"
    DISTINCT_CARDS = "distinct_cards"
    SINCE_PREVIOUS = "microseconds_since_previous"
    LABELLED_PAYMENTS = "labelled_payments"
    FRAUD_RATE = "fraud_rate"

    @property
    def meaning(self) -> str:
        """What the number says, in one line."""
        return _MEANINGS[self][1]

    @property
    def unit(self) -> str:
        """What one of it is."""
        return _MEANINGS[self][0]

    @property
    def counted(self) -> Entity | None:
        """Whose different keys are counted; None when the aggregation counts no keys."""
        return _COUNTED.get(self)

    @property
    def known_time(self) -> str:
        """The business time from which on the aggregated fact may be used: never later than as_of."""
        return "charges.fraud_known_at" if self is Aggregation.FRAUD_RATE else "charges.created"


_COUNTED = {Aggregation.DISTINCT_MERCHANTS: Entity.MERCHANT, Aggregation.DISTINCT_CARDS: Entity.CARD}
_MEANINGS = {
    Aggregation.PAYMENTS: ("payments", "count(P)"),
    Aggregation.DECLINED: ("payments", "count(P with status failed), without the payment being scored"),
    Aggregation.AMOUNT_SUM: ("minor units of eur", "sum(amount of P); without an exchange rate an amount adds nothing"),
    Aggregation.AMOUNT_MEAN: (
        "minor units of eur",
        "sum(amount of P) / count(P with an amount); null when there is none",
    ),
    Aggregation.DISTINCT_MERCHANTS: ("merchants", "count(distinct merchant of P)"),
    Aggregation.DISTINCT_CARDS: ("cards", "count(distinct card of P), unknown cards left out"),
    Aggregation.SINCE_PREVIOUS: ("µs", "t - created of the last payment before as_of; null when P holds none"),
    Aggregation.LABELLED_PAYMENTS: ("payments", "count(P), all old enough for a report of fraud to have come"),
    Aggregation.FRAUD_RATE: ("share", "count(P with fraud_known_at ≤ t) / count(P); null when P is empty"),
}


@dataclass(frozen=True, slots=True)
class Feature:
    """One number about an entity: an aggregation over the entity's payments in a window that ends at as_of.

    A payment's place in time is `event_time`; the fact aggregated counts once its `known_time` ≤ as_of. Both are
    business times, never times of commit or load. The value is an integer, or the float of `evaluation.ratio`; null
    when the entity itself is not known.
    """

    entity: Entity
    aggregation: Aggregation
    window: Window
    owner: str = OWNER
    event_time: str = "charges.created"

    @property
    def name(self) -> str:
        """`card_payments_24h`: unique, and the name of the value online and offline."""
        stem = f"{self.entity}_{self.aggregation}"
        # Its window is only how far back one looks.
        return stem if self.aggregation is Aggregation.SINCE_PREVIOUS else f"{stem}_{self.window.name}"

    @property
    def known_time(self) -> str:
        """The column whose time must not be after as_of."""
        return self.aggregation.known_time


def _sums(entity: Entity) -> Iterator[Feature]:
    for aggregation in (
        Aggregation.PAYMENTS,
        Aggregation.DECLINED,
        Aggregation.AMOUNT_SUM,
        Aggregation.AMOUNT_MEAN,
    ):
        for window in WINDOWS:
            yield Feature(entity, aggregation, window)
    yield Feature(entity, Aggregation.SINCE_PREVIOUS, LAST_MONTH)


def _labels(entity: Entity) -> Iterator[Feature]:
    for window in LABELLED_WINDOWS:
        yield Feature(entity, Aggregation.LABELLED_PAYMENTS, window)
        yield Feature(entity, Aggregation.FRAUD_RATE, window)


def _distinct(entity: Entity, aggregation: Aggregation, *windows: Window) -> Iterator[Feature]:
    for window in windows:
        yield Feature(entity, aggregation, window)


# Different keys cannot be summed up from tiles, so all payments of their windows are read. These are as long as such a
# read stays short: a busy card has hundreds of payments in a week, a busy merchant thousands in an hour.
FEATURES: tuple[Feature, ...] = (
    *_sums(Entity.CARD),
    *_distinct(Entity.CARD, Aggregation.DISTINCT_MERCHANTS, LAST_HOUR, LAST_DAY, LAST_WEEK),
    *_sums(Entity.CUSTOMER),
    *_distinct(Entity.CUSTOMER, Aggregation.DISTINCT_MERCHANTS, LAST_HOUR, LAST_DAY, LAST_WEEK),
    *_distinct(Entity.CUSTOMER, Aggregation.DISTINCT_CARDS, LAST_HOUR, LAST_DAY, LAST_WEEK),
    *_sums(Entity.MERCHANT),
    *_distinct(Entity.MERCHANT, Aggregation.DISTINCT_CARDS, LAST_HOUR),
    *_labels(Entity.MERCHANT),
)
