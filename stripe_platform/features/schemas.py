"""What a document of each collection must look like: MongoDB's `$jsonSchema`, types and required fields only.

The columns of a row are PostgreSQL's to judge, and new ones may come: what is checked is what readers rely on.
"""

from collections.abc import Mapping
from typing import Any

from stripe_platform.features.ids import PREFIXES

Schema = Mapping[str, Any]

# The driver writes an int as the shorter type that holds it.
INTEGER: Schema = {"bsonType": ["int", "long"]}
INTEGER_OR_NULL: Schema = {"bsonType": ["int", "long", "null"]}
TEXT: Schema = {"bsonType": "string"}
TEXT_OR_NULL: Schema = {"bsonType": ["string", "null"]}
FLAG: Schema = {"bsonType": "bool"}
DATE: Schema = {"bsonType": "date"}
OBJECT: Schema = {"bsonType": "object"}
OBJECT_OR_NULL: Schema = {"bsonType": ["object", "null"]}
IS_DELETED: Schema = {"required": ["deleted", "expires"], "properties": {"deleted": {"enum": [True]}, "expires": DATE}}

_POSITION = {"o": INTEGER, "l": INTEGER_OR_NULL, "d": FLAG}


def record(properties: Mapping[str, Schema], **more: Any) -> dict[str, Any]:
    """An object that has all of these fields, and may have others."""
    return {"bsonType": "object", "required": list(properties), "properties": dict(properties), **more}


POSITION = record(_POSITION)


def prefixed_id(table: str) -> Schema:
    """An id of the table's rows."""
    return {"bsonType": "string", "pattern": f"^{PREFIXES[table]}[0-9a-f]{{32}}$"}


def _children(table: str, **columns: Schema) -> Schema:
    return {"bsonType": "array", "items": record({"id": prefixed_id(table), "created": INTEGER, **columns})}


def _charges() -> Schema:
    # Every property costs every charge that is written, so that only those are here that something is computed from.
    always = record(
        {
            "_id": prefixed_id("charges"),
            "_sources": OBJECT,
            "refunds": _children("refunds", amount=INTEGER, status=TEXT),
            "disputes": _children("disputes", amount=INTEGER, reason=TEXT),
            "early_fraud_warnings": _children("early_fraud_warnings", fraud_type=TEXT),
            "fraud_known_at": INTEGER_OR_NULL,
            "card": {"bsonType": ["object", "null"], "required": ["fingerprint"]},
            "reporting_amount": INTEGER_OR_NULL,
            "exchange_rate": {"bsonType": ["object", "null"], "required": ["day", "rate", "exponent"]},
            "outcome": OBJECT_OR_NULL,
        }
    )
    always["properties"] |= {
        "incomplete": {"bsonType": "array", "minItems": 1, "items": TEXT},
        "amount": INTEGER,
        "currency": TEXT,
        "status": TEXT,
        "created": INTEGER,
        "merchant": TEXT,
    }
    has_its_row = {"required": ["amount", "currency", "status", "created", "merchant", "customer", "payment_method"]}
    has_no_row_yet = {
        "required": ["incomplete", "incomplete_since"],
        "properties": {"incomplete": {"bsonType": "array", "items": {"enum": ["charge"]}}},
    }
    return always | {"anyOf": [has_its_row, has_no_row_yet, IS_DELETED]}


def _entities(table: str, **columns: Schema) -> Schema:
    always = record({"_id": prefixed_id(table), "_sources": record({table: POSITION})})
    always["properties"] |= columns
    return always | {"anyOf": [{"required": list(columns)}, IS_DELETED]}


def _source_rows() -> Schema:
    always = record({"_id": {"bsonType": "string", "pattern": "^[a-z_]+/."}, **_POSITION})
    always["properties"] |= {"row": OBJECT, "expires": DATE}
    return always | {"anyOf": [{"required": ["row"]}, {"required": ["expires"]}]}


CHARGES = _charges()
SOURCE_ROWS = _source_rows()
CUSTOMERS = _entities("customers", created=INTEGER, livemode=FLAG)
MERCHANTS = _entities("merchants", business_name=TEXT, statement_descriptor=TEXT_OR_NULL, created=INTEGER)
EVENTS = _entities(
    "events", type=TEXT, object_type=TEXT, object_id=TEXT, payload=OBJECT, created=INTEGER, created_at=DATE
)
DEAD_LETTERS = record(
    {
        "_id": TEXT,
        **dict.fromkeys(("table", "topic", "topic_id", "reason"), TEXT),
        **dict.fromkeys(("partition", "offset", "size", "parts"), INTEGER),
        "seen_at": DATE,
    }
)
DEAD_LETTERS["properties"]["triaged"] = record({"note": TEXT, "at": DATE})
DEAD_LETTER_PARTS = record({"_id": TEXT, "data": {"bsonType": "binData"}})
SINK = record({"_id": TEXT, "version": INTEGER, "offsets": OBJECT})
SINK["properties"] |= {"begun_at": DATE, "holes": OBJECT, "hold": OBJECT}
FRAUD_DECISIONS = record({"charge": prefixed_id("charges"), "decision": TEXT, "created_at": DATE})
