"""Rows that many charges embed, kept once in `source_rows`: intents, payment methods, cards, currencies and rates."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession

from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import check_values
from stripe_platform.features.ids import PREFIXES, prefixed, with_references
from stripe_platform.features.positions import advanced, is_stale
from stripe_platform.features.projection import Unprojectable, take_all
from stripe_platform.features.reading import find_raw
from stripe_platform.features.unchanged import with_unchanged
from stripe_platform.features.writing import Write, marker_expiry

COLLECTION = "source_rows"

KEYS: Mapping[str, tuple[str, ...]] = {
    "payment_intents": ("id",),
    "payment_methods": ("id",),
    "card_fingerprints": ("fingerprint",),
    "currencies": ("code",),
    "exchange_rates": ("day", "currency"),
}

# What the summary of a card takes of the physical card, and of the payment method that holds it.
CARD_COLUMNS = ("brand", "funding", "issuer_country", "last4")
METHOD_COLUMNS = ("exp_month", "exp_year", "wallet")
_EMBEDDED = {f"row.{name}": 1 for name in (*CARD_COLUMNS, *METHOD_COLUMNS, "card_fingerprint", "code", "exponent")}

Row = Mapping[str, Any]


class Card(NamedTuple):
    """What a charge says of its card; nulls for what is the physical card's while that has not come.

    Without a summary the payment method has not come, or is of no card and so complete.
    """

    summary: Row | None
    is_complete: bool


def row_id(table: str, *key: object) -> str:
    """`_id` of a source row: `payment_methods/<uuid>`, `exchange_rates/<days since 1970>/<currency>`."""
    return "/".join((table, *map(str, key)))


class SourceRow:
    """One source row in a batch: as stored, and as the batch leaves it."""

    __slots__ = ("before", "id", "last", "position", "row")

    def __init__(self, id_: str, before: RawBSONDocument | None) -> None:
        self.id, self.before = id_, before
        self.position: Mapping[str, Any] | None = before
        self.row: Row | None = None if before is None else before.get("row")
        # The last change that was not stale.
        self.last: Change | None = None

    @property
    def table(self) -> str:
        """The table of the row."""
        return self.id.split("/", 1)[0]

    @property
    def reference(self) -> str:
        """How documents refer to it: the prefixed id where the table has a prefix, else the key itself."""
        table, key = self.id.split("/", 1)
        return prefixed(table, key) if table in PREFIXES else key

    @property
    def row_before(self) -> Row | None:
        """The stored row; None when it is deleted or has not come."""
        return None if self.before is None else self.before.get("row")

    def take(self, change: Change) -> bool:
        """Apply a change; False when it is stale."""
        if is_stale(self.position, change):
            return False
        row = None
        if change.op != "d":
            check_values(change)
            if change.table == "exchange_rates" and not Decimal(change.row["rate"]).is_finite():
                # numeric's NaN passes the table's check, for PostgreSQL has it greater than any number.
                raise Unprojectable((change, "column rate is not a number"))
            row = with_references(with_unchanged(change, self.row))
            if change.table in ("payment_intents", "payment_methods"):
                row["id"] = prefixed(change.table, row["id"])
        self.position, self.row, self.last = advanced(self.position, change), row, change
        return True

    def write(self, now: datetime) -> Write:
        """The document to store."""
        assert self.last is not None  # noqa: S101 - only changed rows are written
        assert self.position is not None  # noqa: S101
        document: dict[str, Any] = {"_id": self.id}
        if self.row is None:
            document["expires"] = marker_expiry(now)
        else:
            document["row"] = self.row
        document |= self.position
        return Write(self.before, document, self.last)


class Parents:
    """The source rows that a batch changes or needs, read in few calls."""

    def __init__(self, session: ClientSession | None, documents: Documents) -> None:
        self._session, self._documents = session, documents
        self._changed: dict[str, SourceRow] = {}
        self._known: dict[str, Row | None] = {}
        self._cards: dict[str, Card] = {}
        self.stale = 0

    @property
    def changed(self) -> list[SourceRow]:
        """The rows that the batch changes."""
        return [row for row in self._changed.values() if row.last is not None]

    def take(self, changes: Sequence[Change]) -> None:
        """Apply the changes of source rows, in their order; called once, before anything is loaded."""
        keyed = [(row_id(c.table, *(c.row[column] for column in KEYS[c.table])), c) for c in changes]
        if not keyed:
            return
        self._changed = {id_: SourceRow(id_, None) for id_, _ in keyed}
        for found in find_raw(self._session, self._documents, COLLECTION, {"_id": {"$in": list(self._changed)}}):
            self._changed[found["_id"]] = SourceRow(found["_id"], found)
        self.stale += take_all((self._changed[id_].take, change) for id_, change in keyed)
        self._known = {id_: row.row for id_, row in self._changed.items()}

    def load(self, ids: Iterable[str]) -> None:
        """Read rows that have not been read; intents as they lie, of others what charges embed of them."""
        wanted = {id_ for id_ in ids if id_ not in self._known}
        self._known |= dict.fromkeys(wanted)
        intents = [id_ for id_ in wanted if id_.startswith("payment_intents/")]
        if intents:
            for intent in find_raw(self._session, self._documents, COLLECTION, {"_id": {"$in": intents}}):
                self._known[intent["_id"]] = intent.get("row")
        others = list(wanted.difference(intents))
        if others:
            # Decoded whole, which costs a third of opening each twice; no JSON is among these columns.
            found = self._documents[COLLECTION].find(
                {"_id": {"$in": others}}, _EMBEDDED, session=self._session, batch_size=len(others) + 1
            )
            self._known |= {row["_id"]: row.get("row") for row in found}

    def row(self, id_: str) -> Row | None:
        """A loaded row as the batch leaves it; None when it is deleted or has not come."""
        return self._known[id_]

    def card(self, method_id: str) -> Card:
        """What is known of the card of a payment method; both have been loaded."""
        if method_id not in self._cards:
            self._cards[method_id] = self._card(method_id)
        return self._cards[method_id]

    def _card(self, method_id: str) -> Card:
        method = self.row(method_id)
        if method is None:
            return Card(None, is_complete=False)
        if method["card_fingerprint"] is None:
            return Card(None, is_complete=True)
        physical = self.row(row_id("card_fingerprints", method["card_fingerprint"]))
        summary: dict[str, Any] = {"fingerprint": method["card_fingerprint"]}
        summary |= {name: None if physical is None else physical[name] for name in CARD_COLUMNS}
        summary |= {name: method[name] for name in METHOD_COLUMNS}
        return Card(summary, is_complete=physical is not None)

    def last_change(self, id_: str) -> Change | None:
        """The batch's last change of a row; None when it has none."""
        found = self._changed.get(id_)
        return None if found is None else found.last

    def writes(self, now: datetime) -> list[Write]:
        """What is to be stored of the changed rows."""
        return [row.write(now) for row in self.changed]
