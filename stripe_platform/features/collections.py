"""The collections with their validators and indexes, made and altered so that doing it again changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import IndexModel
from pymongo.errors import OperationFailure

from stripe_platform.features import schemas
from stripe_platform.features.connection import Documents
from stripe_platform.features.payments import PAYMENT_INDEXES, Entity
from stripe_platform.features.tiles import TILE_INDEXES, TILE_VALIDATOR

DAY_SECONDS = 24 * 60 * 60
EVENTS_KEPT_DAYS = 30

# What the server tells of an index that is not of its definition.
_ADDED = ("v", "ns", "textIndexVersion")
_INDEX_NOT_FOUND = 27
_NAMESPACE_EXISTS = 48


@dataclass(frozen=True)
class Collection:
    """A collection: what it holds, what a document must be, how it is found. Every index has a name."""

    name: str
    description: str
    schema: schemas.Schema
    indexes: tuple[IndexModel, ...] = ()


def _index(name: str, *fields: str, **options: Any) -> IndexModel:
    return IndexModel([(field, 1) for field in fields], name=name, **options)


def _index_of_some(name: str, *fields: str, having: str) -> IndexModel:
    """An index that costs the documents without the field nothing."""
    return _index(name, *fields, partialFilterExpression={having: {"$exists": True}})


def _expiry(field: str = "expires", days: int = 0) -> IndexModel:
    """Documents leave so many days after the date in the field; those without it stay."""
    return _index(f"{field}_ttl", field, sparse=True, expireAfterSeconds=days * DAY_SECONDS)


def _text(weights: Mapping[str, int]) -> IndexModel:
    # Names and codes are in many languages: no stemming, no stop words. Nor does a document choose others: by default a
    # field `language` would, and with a value that MongoDB knows no language by the document would be refused.
    return IndexModel(
        [(field, "text") for field in weights],
        name="search",
        weights=dict(weights),
        default_language="none",
        language_override="_search_language",
    )


# An index costs every charge that is written: what few charges have is indexed for those alone.
_CHARGE_INDEXES = (
    *PAYMENT_INDEXES,
    _index("currency_by_time", "currency", "created"),
    _index("payment_intent", "payment_intent_id"),
    _index_of_some("incomplete_payment_method", "payment_method", having="incomplete"),
    _index_of_some("incomplete_since", "incomplete_since", having="incomplete_since"),
    _index_of_some("refund", "refunds.id", having="refunds.id"),
    _index_of_some("dispute", "disputes.id", having="disputes.id"),
    _index_of_some("early_fraud_warning", "early_fraud_warnings.id", having="early_fraud_warnings.id"),
    _expiry(),
    # Of the charge's own columns: an outcome that comes later must touch no index, or it costs ten times as much.
    _text({"statement_descriptor": 4, "description": 4, "decline_code": 2, "failure_code": 1}),
)

COLLECTIONS: tuple[Collection, ...] = (
    Collection(
        "charges",
        "Charges, each with its intent, card, outcome, refunds, disputes and fraud warnings.",
        schemas.CHARGES,
        _CHARGE_INDEXES,
    ),
    Collection(
        "source_rows",
        "Rows that many charges embed, once each: intents, payment methods, cards, currencies, rates.",
        schemas.SOURCE_ROWS,
        (_index_of_some("rate", "row.currency", "row.day", having="row.day"), _expiry()),
    ),
    Collection("customers", "Customers, without what would name a person.", schemas.CUSTOMERS, (_expiry(),)),
    Collection(
        "merchants",
        "Merchants.",
        schemas.MERCHANTS,
        (_expiry(), _text({"business_name": 1, "statement_descriptor": 1})),
    ),
    Collection(
        "events",
        "The outbox's webhook events, kept 30 days.",
        schemas.EVENTS,
        (_expiry("created_at", EVENTS_KEPT_DAYS), _expiry()),
    ),
    Collection(
        "fraud_decisions",
        "What was decided of payments, and on which features; kept 90 days.",
        schemas.FRAUD_DECISIONS,
        (_expiry("created_at", 90), _index("charge", "charge")),
    ),
    *(
        Collection(
            entity.collection,
            f"Features of a {entity}: per UTC day, what its payments add up to in slots of ten minutes.",
            TILE_VALIDATOR["$jsonSchema"],
            TILE_INDEXES,
        )
        for entity in Entity
    ),
)


# The sink's own, which no rebuild replaces.
DEAD_LETTERS = Collection(
    "dead_letters",
    "Records of the topics that could not become documents, each with the reason, until replayed or triaged.",
    schemas.DEAD_LETTERS,
)
OF_SINK: tuple[Collection, ...] = (
    DEAD_LETTERS,
    Collection("dead_letter_parts", "The records of the dead letters, whole.", schemas.DEAD_LETTER_PARTS),
    Collection("sink", "How far the documents have come.", schemas.SINK),
)


def ensure_collections(documents: Documents, collections: Sequence[Collection] = (*COLLECTIONS, *OF_SINK)) -> None:
    """Make what is missing and alter what differs: validators at once, indexes by name.

    Indexes that are not in the list are left alone. Safe beside another that does the same.
    """
    existing = {found["name"]: found["options"] for found in documents.list_collections()}
    for collection in collections:
        _ensure_validator(documents, collection, existing.get(collection.name))
        _ensure_indexes(documents, collection)
    if any(collection.name not in existing for collection in collections):
        # What was just made is in no snapshot to read from until something else is written: within ten seconds.
        note = {"w": "majority", "j": True}
        documents.client.admin.command("appendOplogNote", 1, data={"made": documents.name}, writeConcern=note)


def _ensure_validator(documents: Documents, collection: Collection, options: Mapping[str, Any] | None) -> None:
    wanted: dict[str, Any] = {
        "validator": {"$jsonSchema": collection.schema},
        "validationLevel": "strict",
        "validationAction": "error",
    }
    if options is None:
        try:
            documents.create_collection(collection.name, check_exists=False, **wanted)
        except OperationFailure as failure:
            if failure.code != _NAMESPACE_EXISTS:
                raise
            # Another process was faster: what it made may be of another version.
            options = {}
    if options is not None and wanted != {name: options.get(name) for name in wanted}:
        documents.command("collMod", collection.name, **wanted)


def _ensure_indexes(documents: Documents, collection: Collection) -> None:
    target = documents[collection.name]
    existing = target.index_information()
    missing = []
    for index in collection.indexes:
        found = existing.get(index.document["name"])
        if found is None:
            missing.append(index)
        elif _told(found) != _wanted(index):
            _drop_index(documents, collection.name, index.document["name"])
            missing.append(index)
    if missing:
        target.create_indexes(missing)


def _drop_index(documents: Documents, collection: str, name: str) -> None:
    try:
        documents[collection].drop_index(name)
    except OperationFailure as failure:
        # Another process was faster.
        if failure.code != _INDEX_NOT_FOUND:
            raise


def _wanted(index: IndexModel) -> Mapping[str, Any]:
    """The definition as the server gives it back."""
    wanted = {name: value for name, value in index.document.items() if name != "name"}
    keys = list(wanted["key"].items())
    return wanted | {"key": [("_fts", "text"), ("_ftsx", 1)] if "weights" in wanted else keys}


def _told(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the server tells of an index, without what it adds by itself."""
    told = {name: value for name, value in found.items() if name not in _ADDED}
    return told | {"weights": dict(told["weights"])} if "weights" in told else told
