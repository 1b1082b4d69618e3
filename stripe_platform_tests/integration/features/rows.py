"""Source rows and their changes for the tests of documents, and a drain that is nothing but batches."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from pymongo.read_concern import ReadConcern

from stripe_platform.features import projector
from stripe_platform.features.batch import TileWriter
from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.projector import Projected

DAY = 86_400_000_000
COLLECTIONS = ("charges", "source_rows", "customers", "merchants", "events")

Row = dict[str, Any]


def uuid(number: int) -> str:
    """A uuid with the number in its last digits."""
    return str(UUID(int=(7 << 76) | (2 << 62) | number))


def hex_digits(number: int) -> str:
    return uuid(number).replace("-", "")


def charge(number: int, **columns: Any) -> Row:
    return {
        "id": uuid(number),
        "merchant_id": uuid(1),
        "customer_id": None,
        "payment_method_id": None,
        "payment_intent_id": None,
        "amount": 1999,
        "amount_captured": 1999,
        "amount_refunded": 0,
        "currency": "eur",
        "status": "succeeded",
        "captured": True,
        "paid": True,
        "refunded": False,
        "disputed": False,
        "failure_code": None,
        "decline_code": None,
        "description": None,
        "statement_descriptor": "NORTHWIND",
        "shipping_country": "DE",
        "livemode": False,
        "metadata": {},
        "created": 20_000 * DAY + number,
        "updated": 20_000 * DAY + number,
        "three_d_secure_result": None,
        **columns,
    }


def intent(number: int, **columns: Any) -> Row:
    return {
        "id": uuid(number),
        "merchant_id": uuid(1),
        "customer_id": uuid(2),
        "payment_method_id": None,
        "invoice_id": None,
        "amount": 1999,
        "currency": "eur",
        "status": "succeeded",
        "latest_charge_id": None,
        "latest_charge_created": None,
        "metadata": {},
        "created": 20_000 * DAY,
        **columns,
    }


def method(number: int, **columns: Any) -> Row:
    return {
        "id": uuid(number),
        "customer_id": uuid(2),
        "card_fingerprint": "fingerprint-0001",
        "type": "card",
        "exp_month": 12,
        "exp_year": 2031,
        "cvc_check": "pass",
        "wallet": None,
        "metadata": {},
        "created": 20_000 * DAY,
        **columns,
    }


def card(fingerprint: str = "fingerprint-0001", **columns: Any) -> Row:
    return {
        "fingerprint": fingerprint,
        "brand": "visa",
        "funding": "credit",
        "issuer_country": "DE",
        "bin6": "424242",
        "last4": "4242",
        "created": 20_000 * DAY,
        **columns,
    }


def currency(code: str, exponent: int) -> Row:
    return {"code": code, "name": code.upper(), "exponent": exponent, "created": 0}


def rate(day: int, code: str, value: str) -> Row:
    return {"day": day, "currency": code, "rate": value, "created": 0}


def outcome(of: Row, **columns: Any) -> Row:
    return {
        "charge_id": of["id"],
        "charge_created": of["created"],
        "type": "authorized",
        "network_status": "approved_by_network",
        "risk_level": "normal",
        "risk_score": 7,
        "seller_message": "Payment complete.",
        "created": of["created"],
        **columns,
    }


def _child(number: int, of: Row, columns: Row) -> Row:
    return {
        "id": uuid(number),
        "charge_id": of["id"],
        "charge_created": of["created"],
        "created": of["created"] + DAY,
        **columns,
    }


def refund(number: int, of: Row, **columns: Any) -> Row:
    values = {"amount": 100, "currency": of["currency"], "status": "succeeded", "reason": None, "metadata": {}}
    return _child(number, of, values | columns)


def dispute(number: int, of: Row, **columns: Any) -> Row:
    values = {"amount": 100, "currency": of["currency"], "status": "lost", "reason": "fraudulent", "metadata": {}}
    return _child(number, of, values | columns)


def warning(number: int, of: Row, **columns: Any) -> Row:
    return _child(number, of, {"fraud_type": "misc", "actionable": True} | columns)


def merchant(number: int, **columns: Any) -> Row:
    return {
        "id": uuid(number),
        "business_name": "Northwind Books",
        "country": "DE",
        "statement_descriptor": "NORTHWIND",
        "metadata": {},
        "created": 20_000 * DAY,
        **columns,
    }


def customer(number: int, **columns: Any) -> Row:
    return {
        "id": uuid(number),
        "merchant_id": uuid(1),
        "country": "DE",
        "balance": 0,
        "livemode": False,
        "metadata": {},
        "created": 20_000 * DAY,
        **columns,
    }


def event(number: int, **columns: Any) -> Row:
    return {
        "id": uuid(number),
        "merchant_id": uuid(1),
        "type": "charge.succeeded",
        "object_type": "charge",
        "object_id": uuid(number),
        "payload": {"id": uuid(number), "amount": 1999},
        # Not to expire while a test runs.
        "created": 40_000 * DAY,
        **columns,
    }


KEYS = {
    "charges": ("id", "created"),
    "charge_outcomes": ("charge_id", "charge_created"),
    "card_fingerprints": ("fingerprint",),
    "currencies": ("code",),
    "exchange_rates": ("day", "currency"),
}


class Topics:
    """Writes changes as the topics carry them: offsets by table, one partition each, and one log for all."""

    def __init__(self) -> None:
        self.written: list[Change] = []
        self._offsets: dict[str, int] = {}
        self._lsn = 1_000

    def write(self, table: str, op: str, row: Row, unchanged: Sequence[str] = ()) -> Change:
        """A change after all others; a snapshot's record (r) has no LSN."""
        self._lsn += 10
        return self.write_at(self._lsn, table, op, row, unchanged)

    def write_at(self, lsn: int, table: str, op: str, row: Row, unchanged: Sequence[str] = ()) -> Change:
        """A change at the end of its topic, with an LSN of one's own."""
        key = KEYS.get(table, ("id",))
        if op == "d":
            row = {name: row[name] if name in key else None for name in row}
        row = row | dict.fromkeys(unchanged)
        offset = self._offsets.get(table, 0)
        self._offsets[table] = offset + 1
        change = Change(table, op, row, tuple(unchanged), 0, offset, None if op == "r" else lsn)
        self.written.append(change)
        return change


def take(
    documents: Documents, changes: Iterable[Change], *, size: int = 1_000, features: TileWriter | None = None
) -> Projected:
    """Apply the changes in batches as the drain does, each after what goes ahead of it; the sum of what came of it."""
    pending, done = list(changes), Projected(0, 0, 0)
    while pending:
        batch, pending = pending[:size], pending[size:]
        part = take_batch(documents, batch, features)
        done = Projected(done.applied + part.applied, done.stale + part.stale, done.documents + part.documents)
    return done


def take_batch(documents: Documents, batch: Sequence[Change], features: TileWriter | None = None) -> Projected:
    """One batch in a transaction, after the slices ahead of it."""
    snapshot = ReadConcern("snapshot")
    with documents.client.start_session() as session:
        for ids in projector.ahead(documents, batch):
            with session.start_transaction(snapshot):
                projector.refresh(session, documents, batch, ids, features)
        with session.start_transaction(snapshot):
            return projector.project(session, documents, batch, features)


def clear(documents: Documents) -> None:
    for name in COLLECTIONS:
        documents[name].delete_many({})


def stored(documents: Documents, collection: str) -> dict[str, Row]:
    """{_id: document} of a collection."""
    return {found["_id"]: found for found in documents[collection].find()}


def contents(documents: Documents) -> Mapping[str, Mapping[str, Row]]:
    """Every document of every collection."""
    return {name: stored(documents, name) for name in COLLECTIONS}
