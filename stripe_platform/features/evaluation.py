"""From what a read has found to the values of the features: no store, no clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stripe_platform.features.definitions import FEATURES, Aggregation, Feature
from stripe_platform.features.payments import Entity, Payment
from stripe_platform.features.tiles import NOTHING, Tile, running_sums, tile_of
from stripe_platform.features.windows import AsOf, Window, cuts, merged, slot_of

Value = int | float | None


@dataclass(frozen=True)
class Found:
    """What the stores hold of one entity.

    `days`: its documents of tiles by day, from the first to the last of `cuts_of`, with `slots` at least in the days of
    cuts. `payments`: those at the times of `ranges_of`. `earlier`: `created` of the last payment before the newest of
    these ranges, None when there is none within 30 days. `later_labels`: `created` of the payments in `delayed_windows`
    whose report of fraud came after as_of.
    """

    days: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    payments: Sequence[Payment] = ()
    earlier: int | None = None
    later_labels: Sequence[int] = ()


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


@cache
def delayed_windows(entity: Entity) -> tuple[Window, ...]:
    """Those of `summed_windows` in which labels are counted."""
    return tuple(window for window in summed_windows(entity) if window.delay)


@cache
def _widest_counted(entity: Entity) -> Window:
    counting = [feature.window for feature in features_of(entity) if feature.aggregation.counted is not None]
    return max(counting, key=lambda window: window.length)


def cuts_of(entity: Entity, as_of: AsOf) -> tuple[int, ...]:
    """Where the running sum must be known, oldest first; no two lie in one slot."""
    return cuts(summed_windows(entity), as_of.created)


def ranges_of(entity: Entity, as_of: AsOf) -> tuple[tuple[int, int], ...]:
    """The times, both ends inside, whose payments must be known one by one, oldest first: from the begin of a slot to
    the cut in it, and the widest window in which different keys are counted."""
    edges = [(slot_of(cut), cut) for cut in cuts_of(entity, as_of)]
    older, newer = _widest_counted(entity).bounds(as_of.created)
    return merged([*edges, (older + 1, newer)])


def values_of(entity: Entity, found: Found | None, as_of: AsOf, payment: Payment | None) -> dict[str, Value]:
    """{name: value} of the entity's features.

    All null when `found` is None: the entity is not known. `payment` is the one being scored, if it is this entity's.
    """
    if found is None:
        return {feature.name: None for feature in features_of(entity)}
    seen = [each for each in found.payments if as_of.sees(each.created, each.id)]
    sums = _window_sums(entity, found, seen, as_of, payment)
    values: dict[str, Value] = {}
    for feature in features_of(entity):
        aggregation, window = feature.aggregation, feature.window
        if aggregation in _OF_SUMS:
            values[feature.name] = _OF_SUMS[aggregation](sums[window])
        elif aggregation.counted is not None:
            counted = seen if payment is None else [*seen, payment]
            values[feature.name] = _different(counted, aggregation.counted, window.bounds(as_of.created)[0])
        else:
            newest = ranges_of(entity, as_of)[-1][0]
            previous = max((each.created for each in seen if each.created >= newest), default=found.earlier)
            values[feature.name] = None if previous is None else as_of.created - previous
    return values


def _window_sums(
    entity: Entity, found: Found, seen: Sequence[Payment], as_of: AsOf, payment: Payment | None
) -> dict[Window, Tile]:
    ends = cuts_of(entity, as_of)
    running = running_sums(found.days, _edges(seen, ends), ends)
    own = NOTHING if payment is None else tile_of(payment)._replace(declined=0, fraud=0)
    sums = {}
    for window in summed_windows(entity):
        older, newer = window.bounds(as_of.created)
        inside = running[newer].minus(running[older])
        if window.delay:
            unknown = sum(older < created <= newer for created in found.later_labels)
            sums[window] = inside._replace(fraud=inside.fraud - unknown)
        else:
            sums[window] = inside.plus(own)
    return sums


def _edges(payments: Sequence[Payment], ends: Sequence[int]) -> dict[int, Tile]:
    """By the begin of each cut's slot: what the payments from there to the cut add up to."""
    edges = {slot_of(end): NOTHING for end in ends}
    end_of = {slot_of(end): end for end in ends}
    for each in payments:
        slot = slot_of(each.created)
        if slot in edges and each.created <= end_of[slot]:
            edges[slot] = edges[slot].plus(tile_of(each))
    return edges


def _different(payments: Sequence[Payment], counted: Entity, older: int) -> int:
    return len({each.key(counted) for each in payments if each.created > older} - {None})


_OF_SUMS: dict[Aggregation, Callable[[Tile], Value]] = {
    Aggregation.PAYMENTS: lambda tile: tile.payments,
    Aggregation.LABELLED_PAYMENTS: lambda tile: tile.payments,
    Aggregation.DECLINED: lambda tile: tile.declined,
    Aggregation.AMOUNT_SUM: lambda tile: tile.amount,
    Aggregation.AMOUNT_MEAN: lambda tile: ratio(tile.amount, tile.payments - tile.unconverted),
    Aggregation.FRAUD_RATE: lambda tile: ratio(tile.fraud, tile.payments),
}
