"""The questions of the online read: what MongoDB is asked about one card, customer or merchant.

Each is a pipeline of its own over one index. All answers come mixed; each names its `PART` and the entity that it is
`OF`. Conditions stand in `$match` only if they bound the scan of that index or can be judged by its keys; any other
would have documents fetched, or another index tried.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from stripe_platform.features.definitions import Aggregation
from stripe_platform.features.evaluation import cuts_of, features_of, summed_windows
from stripe_platform.features.payments import AMOUNT_LIMIT, CHARGES, IS_PAYMENT, Entity, Payment
from stripe_platform.features.tiles import Tile
from stripe_platform.features.windows import SLOT, AsOf, Window, day_of, slot_of

Pipeline = list[dict[str, Any]]

PART = "part"
OF = "of"


def questions(entity: Entity, key: str, as_of: AsOf, own: Payment | None) -> Iterator[tuple[str, Pipeline]]:
    """(collection, pipeline) for each part of `Found`; `own` is the payment being scored, if it is this entity's."""
    payments = {entity.path: key, **IS_PAYMENT}
    yield entity.collection, _days(entity, key, as_of)
    yield CHARGES, _edges(entity, payments, as_of)
    yield CHARGES, _later_labels(entity, key, as_of)
    for counted in counted_windows(entity):
        yield CHARGES, _distinct(entity, payments, as_of, counted, None if own is None else own.key(counted))
    for feature in features_of(entity):
        if feature.aggregation is Aggregation.SINCE_PREVIOUS:
            yield CHARGES, _previous(entity, payments, as_of, feature.window)


def _is_unseen(as_of: AsOf) -> dict[str, Any]:
    """Of payments up to the microsecond of `as_of`: the expression for what `AsOf.sees` does not see."""
    if as_of.id is None:
        return {"$literal": False}
    return {"$and": [{"$eq": ["$created", as_of.created]}, {"$gte": ["$_id", {"$literal": as_of.id}]}]}


def _within(window: Window, as_of: AsOf) -> dict[str, int]:
    older, newer = window.bounds(as_of.created)
    return {"$gt": older, "$lte": newer}


def _days(entity: Entity, key: str, as_of: AsOf) -> Pipeline:
    """Whole days as their sums; with slots where a window begins or ends."""
    days = [day_of(cut) for cut in cuts_of(entity, as_of)]
    return [
        {"$match": {"_id": {"$gte": {"entity": key, "day": days[0]}, "$lte": {"entity": key, "day": days[-1]}}}},
        {
            "$project": {
                "_id": 0,
                **_labelled(entity, "days"),
                "day": "$_id.day",
                **dict.fromkeys(Tile._fields, 1),
                "slots": {"$cond": [{"$in": ["$_id.day", days]}, "$slots", "$$REMOVE"]},
            }
        },
    ]


def _edges(entity: Entity, payments: Mapping[str, Any], as_of: AsOf) -> Pipeline:
    """The payments between the begin of a slot and the cut within it, as one tile for each cut; `last`: the time of the
    last one."""
    ranges = [{"created": {"$gte": slot_of(cut), "$lte": cut}} for cut in cuts_of(entity, as_of)]
    slot = {"$subtract": ["$created", {"$mod": ["$created", SLOT]}]}
    amount = "$reporting_amount"
    # In MongoDB's order null is less than any number.
    is_converted = {"$and": [{"$gte": [amount, -AMOUNT_LIMIT]}, {"$lte": [amount, AMOUNT_LIMIT]}]}
    sums = {
        "payments": {"$sum": 1},
        "declined": _count({"$eq": ["$status", "failed"]}),
        "amount": {"$sum": {"$cond": [is_converted, amount, 0]}},
        "unconverted": _count({"$not": is_converted}),
        "fraud": _count({"$gt": ["$fraud_known_at", None]}),
        "last": {"$max": "$created"},
    }
    return [
        {"$match": {**payments, "$or": ranges}},
        {"$group": {"_id": {"$cond": [_is_unseen(as_of), None, slot]}, **sums}},
        {"$match": {"_id": {"$ne": None}}},
        {"$addFields": _labelled(entity, "edges")},
    ]


def _later_labels(entity: Entity, key: str, as_of: AsOf) -> Pipeline:
    """How many labels of each window a read at as_of must not know yet. Tiles count labels by their payment's time."""
    windows = [window for window in summed_windows(entity) if window.delay]
    widest = max(windows, key=lambda window: window.length)
    return [
        {
            "$match": {
                entity.path: key,
                "fraud_known_at": {"$gt": as_of.created},
                "created": _within(widest, as_of),
                **IS_PAYMENT,
            }
        },
        {"$group": {"_id": None, **_by_window(windows, "$created", as_of)}},
        {"$addFields": _labelled(entity, "later_labels")},
    ]


def _distinct(entity: Entity, payments: Mapping[str, Any], as_of: AsOf, counted: Entity, own: str | None) -> Pipeline:
    """How many different keys each window holds, `own` left out: all windows end alike, so each key's last payment says
    in which it is."""
    windows = counted_windows(entity)[counted]
    widest = max(windows, key=lambda window: window.length)
    is_left_out = {"$in": ["$_id", {"$literal": [None, own]}]}
    last = {"$max": {"$cond": [_is_unseen(as_of), None, "$created"]}}
    return [
        {"$match": {**payments, "created": _within(widest, as_of)}},
        {"$group": {"_id": f"${counted.path}", "last": last}},
        {"$set": {"last": {"$cond": [is_left_out, None, "$last"]}}},
        {"$group": {"_id": None, **_by_window(windows, "$last", as_of)}},
        {"$addFields": {**_labelled(entity, "distinct"), "counted": counted.value}},
    ]


def _previous(entity: Entity, payments: Mapping[str, Any], as_of: AsOf, window: Window) -> Pipeline:
    """The last payment before the slot of as_of; one within the slot shows in `last` of its edge."""
    within = {"$gt": window.bounds(as_of.created)[0], "$lt": slot_of(as_of.created)}
    return [
        {"$match": {**payments, "created": within}},
        {"$sort": {"created": -1}},
        {"$limit": 1},
        {"$project": {"_id": 0, **_labelled(entity, "previous"), "last": "$created"}},
    ]


@cache
def counted_windows(entity: Entity) -> dict[Entity, list[Window]]:
    """{whose different keys are counted: in which windows}."""
    windows: dict[Entity, list[Window]] = defaultdict(list)
    for feature in features_of(entity):
        if feature.aggregation.counted is not None:
            windows[feature.aggregation.counted].append(feature.window)
    return windows


def _count(condition: Mapping[str, Any]) -> dict[str, Any]:
    return {"$sum": {"$cond": [condition, 1, 0]}}


def _by_window(windows: Iterable[Window], time: str, as_of: AsOf) -> dict[str, Any]:
    return {window.name: _count({"$gt": [time, window.bounds(as_of.created)[0]]}) for window in windows}


def _labelled(entity: Entity, part: str) -> dict[str, Any]:
    return {PART: part, OF: entity.value}
