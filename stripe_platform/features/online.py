"""The online read: all features of a payment, and how far the store is, in one round trip and one snapshot."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from stripe_platform.features import hold
from stripe_platform.features.evaluation import Found, Value, values_of
from stripe_platform.features.payments import Entity, Payment, payment_of
from stripe_platform.features.queries import PART, Pipeline, part, questions
from stripe_platform.features.windows import AsOf

SNAPSHOT_UNAVAILABLE = 246


@dataclass(frozen=True)
class FeatureVector:
    """The value of every feature by name, and the sink's offsets and version in the snapshot that they were read from.

    `version` is None before the sink's first batch.
    """

    values: Mapping[str, Value]
    offsets: Mapping[str, Any]
    version: int | None


def read(
    database: Database[dict[str, Any]],
    *,
    card: str | None,
    customer: str | None,
    merchant: str | None,
    as_of: AsOf,
    payment: Payment | None,
) -> FeatureVector:
    """The features of these three as `as_of` sees them; all null for one that is None.

    `payment` is the one being scored, which is at `as_of`: it counts in the windows of its own card, customer and
    merchant as it is given here, whether the store has it or not; what became of it does not count. Exact while the
    tiles live: for every `as_of` within the last 8 days, and longer after an import of old payments into a new store.
    """
    if payment is not None and as_of != AsOf(payment.created, payment.id):
        raise ValueError("the payment being scored must be at as_of: AsOf(payment.created, payment.id)")
    keys = {Entity.CARD: card, Entity.CUSTOMER: customer, Entity.MERCHANT: merchant}
    pipeline: Pipeline = [
        {"$match": {"_id": hold.ID}},
        {"$project": {"_id": 0, "version": 1, "offsets": 1, PART: hold.COLLECTION}},
    ]
    pipeline += [
        {"$unionWith": {"coll": collection, "pipeline": question}}
        for entity, key in keys.items()
        if key is not None
        for collection, question in questions(entity, key, as_of)
    ]
    sink = database.get_collection(hold.COLLECTION, read_concern=ReadConcern("snapshot"))
    parts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    with sink.aggregate(pipeline) as answer:
        for document in answer:
            parts[document[PART]].append(document)
    values: dict[str, Value] = {}
    for entity, key in keys.items():
        own = payment if payment is not None and payment.key(entity) == key else None
        values |= values_of(entity, None if key is None else _found(entity, parts), as_of, own)
    state = parts[hold.COLLECTION][0] if parts[hold.COLLECTION] else {}
    return FeatureVector(values, state.get("offsets", {}), state.get("version"))


def _found(entity: Entity, parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Found:
    found = {each: parts.get(part(entity, each), ()) for each in ("days", "payments", "earlier", "later_labels")}
    return Found(
        days={document["day"]: document for document in found["days"]},
        payments=[each for document in found["payments"] if (each := payment_of(document)) is not None],
        earlier=next((document["created"] for document in found["earlier"]), None),
        later_labels=[document["created"] for document in found["later_labels"]],
    )
