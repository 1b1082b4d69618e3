"""Whether tiles are what the charges' documents add up to: days sampled from both sides, each compared to the unit."""

import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pymongo.client_session import ClientSession

from stripe_platform.features.connection import Documents
from stripe_platform.features.payments import CHARGES, IS_PAYMENT, Entity, Payment, fields_by_time, payment_of
from stripe_platform.features.tiles import day_of_payments, oldest_begun
from stripe_platform.features.windows import DAY, day_of

# A day of a card takes a millisecond, one of a busy merchant a second.
STORED_DAYS = 500
CHARGES_LOOKED_AT = 2_000
PAID_DAYS = 500
MOST_PAYMENTS = 200_000

_NEVER = datetime.fromtimestamp(0, UTC)
Place = tuple[str, int]


class Audit(NamedTuple):
    """How many days of one entity were compared, and how many of them are not the sum of their payments."""

    compared: int
    differ: int


def audit(documents: Documents, entity: Entity) -> Audit:
    """Compare a sample of stored days, and of days of charges whose tiles cannot have expired.

    No more are compared once `MOST_PAYMENTS` were read. One snapshot, however the stream moves on.
    """
    places = list({*_stored_days(documents, entity), *_paid_days(documents, entity)})
    random.shuffle(places)
    compared = differ = payments = 0
    with documents.client.start_session(snapshot=True) as session:
        for place in places:
            paid = list(_payments(session, documents, entity, place))
            differ += not _is_sum(session, documents, entity, place, paid)
            compared += 1
            payments += len(paid)
            if payments > MOST_PAYMENTS:
                break
    return Audit(compared, differ)


def _stored_days(documents: Documents, entity: Entity) -> Iterator[Place]:
    sampled = documents[entity.collection].aggregate([{"$sample": {"size": STORED_DAYS}}, {"$project": {"_id": 1}}])
    for found in sampled:
        yield found["_id"]["entity"], found["_id"]["day"]


def _paid_days(documents: Documents, entity: Entity) -> Iterator[Place]:
    oldest = oldest_begun(_NEVER, datetime.now(UTC)) or 0
    pipeline: list[Mapping[str, Any]] = [
        {"$sample": {"size": CHARGES_LOOKED_AT}},
        {"$match": {**IS_PAYMENT, entity.path: {"$gt": ""}, "created": {"$gte": oldest * DAY}}},
        {"$limit": PAID_DAYS},
        {"$project": {"_id": 0, "key": f"${entity.path}", "created": 1}},
    ]
    for found in documents[CHARGES].aggregate(pipeline):
        yield found["key"], day_of(found["created"])


def _payments(session: ClientSession, documents: Documents, entity: Entity, place: Place) -> Iterator[Payment]:
    key, day = place
    of_day = {**IS_PAYMENT, entity.path: key, "created": {"$gte": day * DAY, "$lt": (day + 1) * DAY}}
    for found in documents[CHARGES].find(of_day, dict.fromkeys(fields_by_time(entity), 1), session=session):
        if payment := payment_of(found):
            yield payment


def _is_sum(
    session: ClientSession, documents: Documents, entity: Entity, place: Place, payments: Iterable[Payment]
) -> bool:
    key, day = place
    wanted = {"_id": {"entity": key, "day": day}}
    stored = documents[entity.collection].find_one(wanted, {"_id": 0, "expires": 0}, session=session)
    return stored == day_of_payments(payments)
