"""The questions of the online read: what MongoDB is asked about one card, customer or merchant.

Each is a pipeline of its own over one index. All answers come mixed; each document names the `PART` that it is of. What
makes the answer exact (ties, edges, labels not yet known) is left to `evaluation`: to add up the few payments that
there are costs the server more than to send them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from stripe_platform.features.definitions import Aggregation
from stripe_platform.features.evaluation import cuts_of, delayed_windows, features_of, ranges_of
from stripe_platform.features.payments import CHARGES, IS_PAYMENT, Entity, fields_by_time
from stripe_platform.features.tiles import Tile
from stripe_platform.features.windows import AsOf, day_of

Pipeline = list[dict[str, Any]]

PART = "part"


def part(entity: Entity, of_found: str) -> str:
    """The name of the part of the answer that becomes this field of the entity's `Found`."""
    return f"{entity}.{of_found}"


def questions(entity: Entity, key: str, as_of: AsOf) -> Iterator[tuple[str, Pipeline]]:
    """(collection, pipeline) for each part of `Found`."""
    payments = {entity.path: key, **IS_PAYMENT}
    yield entity.collection, _days(entity, key, as_of)
    yield CHARGES, _payments(entity, payments, as_of)
    yield CHARGES, _earlier(entity, payments, as_of)
    if delayed_windows(entity):
        yield CHARGES, _later_labels(entity, payments, as_of)


def _days(entity: Entity, key: str, as_of: AsOf) -> Pipeline:
    """Whole days as their sums; with slots where a window begins or ends."""
    days = [day_of(cut) for cut in cuts_of(entity, as_of)]
    return [
        {"$match": {"_id": {"$gte": {"entity": key, "day": days[0]}, "$lte": {"entity": key, "day": days[-1]}}}},
        {
            "$project": {
                "_id": 0,
                PART: part(entity, "days"),
                "day": "$_id.day",
                **dict.fromkeys(Tile._fields, 1),
                "slots": {"$cond": [{"$in": ["$_id.day", days]}, "$slots", "$$REMOVE"]},
            }
        },
    ]


def _payments(entity: Entity, payments: Mapping[str, Any], as_of: AsOf) -> Pipeline:
    # Each branch whole: with the key outside of `$or`, the planner may scan all of the entity and fetch its documents.
    ranges = [{**payments, "created": {"$gte": begin, "$lte": end}} for begin, end in ranges_of(entity, as_of)]
    return [
        {"$match": {"$or": ranges}},
        {"$project": {PART: part(entity, "payments"), **dict.fromkeys(fields_by_time(entity), 1)}},
    ]


def _earlier(entity: Entity, payments: Mapping[str, Any], as_of: AsOf) -> Pipeline:
    (window,) = (f.window for f in features_of(entity) if f.aggregation is Aggregation.SINCE_PREVIOUS)
    within = {"$gt": window.bounds(as_of.created)[0], "$lt": ranges_of(entity, as_of)[-1][0]}
    return [
        {"$match": {**payments, "created": within}},
        {"$sort": {"created": -1}},
        {"$limit": 1},
        {"$project": {"_id": 0, PART: part(entity, "earlier"), "created": 1}},
    ]


def _later_labels(entity: Entity, payments: Mapping[str, Any], as_of: AsOf) -> Pipeline:
    """The tiles count labels by the time of their payment, whenever they became known."""
    bounds = [window.bounds(as_of.created) for window in delayed_windows(entity)]
    within = {"$gt": min(older for older, _ in bounds), "$lte": max(newer for _, newer in bounds)}
    return [
        {"$match": {**payments, "fraud_known_at": {"$gt": as_of.created}, "created": within}},
        {"$project": {"_id": 0, PART: part(entity, "later_labels"), "created": 1}},
    ]
