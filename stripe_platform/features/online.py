"""The online read: all features of a payment, and how far the store is, in one round trip and one snapshot."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from stripe_platform.features.evaluation import Found, Value, summed_windows, values_of
from stripe_platform.features.payments import Entity, Payment
from stripe_platform.features.queries import OF, PART, Pipeline, counted_windows, questions
from stripe_platform.features.tiles import stored_tile
from stripe_platform.features.windows import AsOf, slot_of

SINK_COLLECTION = "sink"
SINK = "mongodb"


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
    tiles live: for every `as_of` within the last 8 days, and longer after an import of old payments.
    """
    if payment is not None and as_of != AsOf(payment.created, payment.id):
        raise ValueError("the payment being scored must be at as_of: AsOf(payment.created, payment.id)")
    keys = {Entity.CARD: card, Entity.CUSTOMER: customer, Entity.MERCHANT: merchant}
    own = {
        entity: payment if payment is not None and payment.key(entity) == key else None for entity, key in keys.items()
    }
    pipeline: Pipeline = [{"$match": {"_id": SINK}}, {"$project": {"_id": 0, "version": 1, "offsets": 1, PART: "sink"}}]
    pipeline += [
        {"$unionWith": {"coll": collection, "pipeline": question}}
        for entity, key in keys.items()
        if key is not None
        for collection, question in questions(entity, key, as_of, own[entity])
    ]
    sink = database.get_collection(SINK_COLLECTION, read_concern=ReadConcern("snapshot"))
    with sink.aggregate(pipeline) as answer:
        state, found = _taken_apart(answer, as_of)
    values: dict[str, Value] = {}
    for entity, key in keys.items():
        values |= values_of(entity, None if key is None else found[entity], as_of, own[entity])
    return FeatureVector(values, state.get("offsets", {}), state.get("version"))


def _taken_apart(answer: Iterable[Mapping[str, Any]], as_of: AsOf) -> tuple[Mapping[str, Any], dict[Entity, Found]]:
    """The sink's document, empty before its first batch, and what was found of each entity."""
    sink: Mapping[str, Any] = {}
    parts: dict[Entity, dict[str, list[Mapping[str, Any]]]] = {entity: defaultdict(list) for entity in Entity}
    for document in answer:
        if document[PART] == "sink":
            sink = document
        else:
            parts[Entity(document[OF])][document[PART]].append(document)
    return sink, {entity: _found(entity, as_of, of_entity) for entity, of_entity in parts.items()}


def _found(entity: Entity, as_of: AsOf, parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Found:
    newest = [edge for edge in parts["edges"] if edge["_id"] == slot_of(as_of.created)]
    return Found(
        days={document["day"]: document for document in parts["days"]},
        edges={document["_id"]: stored_tile(document) for document in parts["edges"]},
        later_labels={
            window: document[window.name]
            for document in parts["later_labels"]
            for window in summed_windows(entity)
            if window.delay
        },
        distinct={
            (counted, window): document[window.name]
            for document in parts["distinct"]
            for counted, windows in counted_windows(entity).items()
            if document["counted"] == counted
            for window in windows
        },
        previous=max((document["last"] for document in (*parts["previous"], *newest)), default=None),
    )
