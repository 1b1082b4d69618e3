"""The online read: all features of a payment, and how far the store is, in one round trip and one snapshot."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from stripe_platform.errors import StripePlatformError
from stripe_platform.features import hold
from stripe_platform.features.evaluation import Found, Value, values_of
from stripe_platform.features.payments import Entity, Payment, payment_of
from stripe_platform.features.queries import PART, Pipeline, part, questions
from stripe_platform.features.windows import AsOf

# The server's codes while a collection that is read is replaced: the snapshot is older than the collection, or the
# collection went in the midst of the read (namespace not found, plan killed). One that never was there is no error.
_REPLACED = (246, 26, 175)
SWAP_LIMIT = timedelta(seconds=5)
_ASKED_AGAIN_AFTER_S = 0.01

Parts = Mapping[str, Sequence[Mapping[str, Any]]]


class BeingPutInPlace(StripePlatformError):
    """A rebuild puts collections in place, and for too long no snapshot holds all of them."""

    def __init__(self) -> None:
        super().__init__(
            f"no snapshot of MongoDB's features could be read for {SWAP_LIMIT.total_seconds():.0f} s, for collections "
            "are being put in place by `stripe-platform rebuild`, or were just made: read again in a moment"
        )


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
    `BeingPutInPlace` when a rebuild that puts collections in place takes longer than a read may wait.
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
    parts = _parts(sink, pipeline)
    values: dict[str, Value] = {}
    for entity, key in keys.items():
        own = payment if payment is not None and payment.key(entity) == key else None
        values |= values_of(entity, None if key is None else _found(entity, parts), as_of, own)
    (state,) = parts.get(hold.COLLECTION) or ({},)
    return FeatureVector(values, state.get("offsets", {}), state.get("version"))


def _parts(sink: Collection[dict[str, Any]], pipeline: Pipeline) -> Parts:
    deadline = time.monotonic() + SWAP_LIMIT.total_seconds()
    while True:
        try:
            return _asked_once(sink, pipeline)
        except OperationFailure as failure:
            if failure.code not in _REPLACED:
                raise
        if time.monotonic() > deadline:
            raise BeingPutInPlace
        time.sleep(_ASKED_AGAIN_AFTER_S)


def _asked_once(sink: Collection[dict[str, Any]], pipeline: Pipeline) -> Parts:
    parts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    with sink.aggregate(pipeline) as answer:
        for document in answer:
            parts[document[PART]].append(document)
    return parts


def _found(entity: Entity, parts: Parts) -> Found:
    found = {each: parts.get(part(entity, each), ()) for each in ("days", "payments", "earlier", "later_labels")}
    return Found(
        days={document["day"]: document for document in found["days"]},
        payments=[each for document in found["payments"] if (each := payment_of(document)) is not None],
        earlier=next((document["created"] for document in found["earlier"]), None),
        later_labels=[document["created"] for document in found["later_labels"]],
    )
