"""What features know of a charge, and how they find charges in MongoDB."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pymongo import IndexModel

CHARGES = "charges"

LEAST_INT64 = -(2**63)
# A larger amount is taken as not converted: else two mistyped ones could overflow the sum of a tile and so stop the
# stream. Nine million payments of this size in one day still fit.
AMOUNT_LIMIT = 10**12


class Entity(StrEnum):
    """Whose payments a feature sums up; each has the collection `<entity>_features`."""

    CARD = "card"
    CUSTOMER = "customer"
    MERCHANT = "merchant"

    @property
    def path(self) -> str:
        """Where a document of `charges` holds the entity's key."""
        return "card.fingerprint" if self is Entity.CARD else self.value

    @property
    def collection(self) -> str:
        """The collection of the entity's tiles."""
        return f"{self}_features"


@dataclass(frozen=True, slots=True)
class Payment:
    """A charge as features see it: `created` and `fraud_known_at` in microseconds since 1970.

    `card` is the card's fingerprint, `amount` minor units of the reporting currency, None while no exchange rate is
    known; `fraud_known_at` is when the charge was first reported as fraudulent, None if never.
    """

    id: str
    created: int
    merchant: str
    customer: str | None
    card: str | None
    amount: int | None
    declined: bool
    fraud_known_at: int | None

    def key(self, entity: Entity) -> str | None:
        """The payment's card, customer or merchant."""
        if entity is Entity.CARD:
            return self.card
        return self.customer if entity is Entity.CUSTOMER else self.merchant


# The status comes with the row of the charge itself. Both are judged by the keys of an index: no document is fetched.
IS_PAYMENT: Mapping[str, Any] = {"status": {"$gte": ""}, "deleted": {"$ne": True}}


def payment_of(document: Mapping[str, Any]) -> Payment | None:
    """The payment of a document of `charges`; None when the charge is deleted or its own row has not come yet."""
    if document.get("deleted") is True or not isinstance(document.get("status"), str):
        return None
    card = document.get("card")
    amount = document.get("reporting_amount")
    return Payment(
        id=document["_id"],
        created=document["created"],
        merchant=document["merchant"],
        customer=document.get("customer"),
        card=card.get("fingerprint") if card else None,
        amount=amount if amount is not None and abs(amount) <= AMOUNT_LIMIT else None,
        declined=document["status"] == "failed",
        fraud_known_at=document.get("fraud_known_at"),
    )


# Whose different keys are counted among an entity's payments.
_COUNTED = {
    Entity.CARD: (Entity.MERCHANT,),
    Entity.CUSTOMER: (Entity.MERCHANT, Entity.CARD),
    Entity.MERCHANT: (Entity.CARD,),
}


def fields_by_time(entity: Entity) -> tuple[str, ...]:
    """What features read of an entity's payments one by one, enough for `payment_of`."""
    keys = (Entity.MERCHANT.path, *(other.path for other in _COUNTED[entity]))
    return tuple(dict.fromkeys(("_id", "created", "status", "reporting_amount", "fraud_known_at", *keys)))


def _by_time(entity: Entity) -> IndexModel:
    """An entity's payments by time, with all that features read of them: no document need be fetched."""
    keys = dict.fromkeys((entity.path, "created", "status", "deleted", *fields_by_time(entity)))
    return IndexModel([(key, 1) for key in keys], name=f"{entity}_by_time")


def _by_label(entity: Entity) -> IndexModel:
    """An entity's fraudulent payments by the time of their report."""
    keys = (entity.path, "fraud_known_at", "created", "status", "deleted")
    return IndexModel(
        [(key, 1) for key in keys],
        name=f"{entity}_by_label",
        # Of all that a partial index can test, only this leaves out nulls.
        partialFilterExpression={"fraud_known_at": {"$gte": LEAST_INT64}},
    )


# Of the collection `CHARGES`.
PAYMENT_INDEXES: tuple[IndexModel, ...] = (
    *(_by_time(entity) for entity in Entity),
    _by_label(Entity.MERCHANT),
)
