"""From what a read has found to the values of the features: no store, no clock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stripe_platform.features.definitions import FEATURES, Aggregation, Feature
from stripe_platform.features.payments import Entity, Payment
from stripe_platform.features.tiles import NOTHING, Tile, running_sums, tile_of
from stripe_platform.features.windows import AsOf, Window, cuts

Value = int | float | None


@dataclass(frozen=True)
class Found:
    """What the stores hold of one entity and as_of sees, always without the payment being scored.

    `days` and `edges` as `tiles.running_sums` takes them; `later_labels`: payments of the window whose report of fraud
    came after as_of; `distinct`: different keys in the window, without the key of the payment being scored;
    `previous`: `created` of the last payment, None when there is none within the window of the feature.
    """

    days: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    edges: Mapping[int, Tile] = field(default_factory=dict)
    later_labels: Mapping[Window, int] = field(default_factory=dict)
    distinct: Mapping[tuple[Entity, Window], int] = field(default_factory=dict)
    previous: int | None = None


def ratio(numerator: int, denominator: int) -> float | None:
    """The one division of the features: of two doubles, null for nothing. SQL: `n::double / nullif(d, 0)::double`."""
    return float(numerator) / float(denominator) if denominator else None


@cache
def features_of(entity: Entity) -> tuple[Feature, ...]:
    """The features of an entity."""
    return tuple(feature for feature in FEATURES if feature.entity is entity)


@cache
def summed_windows(entity: Entity) -> tuple[Window, ...]:
    """The windows over which an entity's tiles are summed, each once."""
    summed = [feature for feature in features_of(entity) if feature.aggregation in _OF_SUMS]
    return tuple(dict.fromkeys(feature.window for feature in summed))


def cuts_of(entity: Entity, as_of: AsOf) -> tuple[int, ...]:
    """Where the read must know the running sum, oldest first; no two lie in one slot."""
    return cuts(summed_windows(entity), as_of.created)


def values_of(entity: Entity, found: Found | None, as_of: AsOf, payment: Payment | None) -> dict[str, Value]:
    """{name: value} of the entity's features.

    All null when `found` is None: the entity is not known. `payment` is the one being scored, if it is this entity's.
    """
    if found is None:
        return {feature.name: None for feature in features_of(entity)}
    sums = _window_sums(entity, found, as_of, payment)
    return {feature.name: _value(feature, found, sums, as_of, payment) for feature in features_of(entity)}


def _window_sums(entity: Entity, found: Found, as_of: AsOf, payment: Payment | None) -> dict[Window, Tile]:
    running = running_sums(found.days, found.edges, cuts_of(entity, as_of))
    own = NOTHING if payment is None else tile_of(payment)._replace(declined=0, fraud=0)
    sums = {}
    for window in summed_windows(entity):
        older, newer = window.bounds(as_of.created)
        seen = running[newer].minus(running[older])
        seen = seen._replace(fraud=seen.fraud - found.later_labels.get(window, 0))
        sums[window] = seen if window.delay else seen.plus(own)
    return sums


_OF_SUMS: dict[Aggregation, Callable[[Tile], Value]] = {
    Aggregation.PAYMENTS: lambda tile: tile.payments,
    Aggregation.LABELLED_PAYMENTS: lambda tile: tile.payments,
    Aggregation.DECLINED: lambda tile: tile.declined,
    Aggregation.AMOUNT_SUM: lambda tile: tile.amount,
    Aggregation.AMOUNT_MEAN: lambda tile: ratio(tile.amount, tile.payments - tile.unconverted),
    Aggregation.FRAUD_RATE: lambda tile: ratio(tile.fraud, tile.payments),
}


def _value(feature: Feature, found: Found, sums: Mapping[Window, Tile], as_of: AsOf, payment: Payment | None) -> Value:
    if feature.aggregation in _OF_SUMS:
        return _OF_SUMS[feature.aggregation](sums[feature.window])
    counted = feature.aggregation.counted
    if counted is not None:
        has_own = payment is not None and payment.key(counted) is not None
        return found.distinct.get((counted, feature.window), 0) + has_own
    return None if found.previous is None else as_of.created - found.previous
