"""A charge with everything that belongs to it, as one document."""

from datetime import datetime
from typing import Any

from bson.raw_bson import RawBSONDocument

from stripe_platform.features.changes import Change
from stripe_platform.features.encoding import check_values
from stripe_platform.features.exchange import Rates, day_of
from stripe_platform.features.ids import prefixed, with_references
from stripe_platform.features.parents import Parents, Row
from stripe_platform.features.positions import Position, advanced, furthest, is_stale
from stripe_platform.features.unchanged import with_unchanged
from stripe_platform.features.writing import marker_expiry
from stripe_platform.money import REPORTING_CURRENCY

COLLECTION = "charges"

# The tables whose rows a charge keeps in arrays.
CHILDREN = ("refunds", "disputes", "early_fraud_warnings")
TABLES = ("charges", "charge_outcomes", *CHILDREN)

# What is no column of the charge itself.
_COMPOSED = (
    "_id",
    "payment_intent",
    "card",
    "outcome",
    *CHILDREN,
    "reporting_amount",
    "exchange_rate",
    "fraud_known_at",
    "incomplete",
    "incomplete_since",
    "deleted",
    "expires",
    "_sources",
)
_OF_NO_CHARGE = dict.fromkeys(("payment_intent", "card", "reporting_amount", "exchange_rate"))


class Charge:
    """One charge in a batch: its own rows as the batch leaves them, and the document that they make.

    The document is a function of the rows, their parents and their positions alone, whatever the order in which they
    came; only `incomplete_since` and `expires` are the clock's.
    """

    __slots__ = (
        "before",
        "children",
        "columns",
        "id",
        "intent_id",
        "last",
        "method_id",
        "outcome",
        "since",
        "sources",
    )

    def __init__(self, id_: str, before: RawBSONDocument | None) -> None:
        self.id, self.before = id_, before
        # The last change that was not stale.
        self.last: Change | None = None
        # None: the charge's row is deleted or has not come.
        self.columns: dict[str, Any] | None = None
        # The source rows of its intent and its payment method.
        self.intent_id: str | None = None
        self.method_id: str | None = None
        self.outcome: Row | None = None
        self.children: dict[str, dict[str, Row]] = {}
        self.sources: dict[str, Any] = {}
        self.since: datetime | None = None
        if before is not None:
            self._read(dict(before.items()))

    def _read(self, stored: dict[str, Any]) -> None:
        self.outcome, self.since = stored["outcome"], stored.get("incomplete_since")
        self.children = {table: {child["id"]: child for child in stored[table]} for table in CHILDREN}
        self.sources = dict(stored["_sources"].items())
        if "charges" in self.sources and not self.sources["charges"]["d"]:
            for name in _COMPOSED:
                stored.pop(name, None)
            self._have(stored)

    def _have(self, columns: dict[str, Any] | None) -> None:
        self.columns = columns
        if columns is None:
            self.intent_id = self.method_id = None
        else:
            self.intent_id = source_row_of("payment_intents", columns["payment_intent_id"])
            self.method_id = source_row_of("payment_methods", columns["payment_method"])

    def holds(self, change: Change) -> bool:
        """Whether it has the child of the change, as one that is not deleted."""
        position = self.sources.get(change.table, {}).get(change.row["id"])
        return position is not None and not position["d"]

    def take(self, change: Change, marker: Position | None = None) -> bool:
        """Apply a change of the charge or of a row that belongs to it; False when it is stale.

        `marker` is of a child: the position of its last delete.
        """
        is_taken = self._take_child(change, marker) if change.table in CHILDREN else self._take_row(change)
        if is_taken:
            self.last = change
        return is_taken

    def _take_row(self, change: Change) -> bool:
        table = change.table
        position = self.sources.get(table)
        if is_stale(position, change):
            return False
        fields = None
        if change.op != "d":
            check_values(change)
            fields = with_references(with_unchanged(change, self.columns if table == "charges" else self.outcome))
            if table == "charges":
                del fields["id"]
        if table == "charges":
            self._have(fields)
        else:
            self.outcome = fields and _without_charge(fields)
        self.sources[table] = advanced(position, change)
        return True

    def _take_child(self, change: Change, marker: Position | None) -> bool:
        table, key = change.table, change.row["id"]
        positions = dict(self.sources.get(table) or {})
        position = furthest(positions.get(key), marker)
        if is_stale(position, change):
            return False
        children = self.children.setdefault(table, {})
        id_ = prefixed(table, key)
        if change.op == "d":
            children.pop(id_, None)
        else:
            check_values(change)
            fields = with_references(with_unchanged(change, children.get(id_)))
            children[id_] = {**_without_charge(fields), "id": id_}
        positions[key] = advanced(position, change)
        self.sources[table] = positions
        return True

    def compose(self, parents: Parents, rates: Rates, now: datetime) -> dict[str, Any]:
        """The document; parents and rates have been loaded.

        What the validator looks at comes first: it looks from the front each time.
        """
        missing: list[str] = []
        columns, children = self.columns, self.children
        document: dict[str, Any] = {"_id": self.id, "_sources": self.sources}
        for table in CHILDREN:
            held = children.get(table)
            document[table] = sorted(held.values(), key=_created_and_id) if held else []
        document["fraud_known_at"] = self._fraud_known_at() if children else None
        if columns is None:
            document |= _OF_NO_CHARGE
            if "charges" not in self.sources:
                missing.append("charge")
        else:
            document["payment_intent"] = self._intent(parents, missing)
            document["card"] = self._card(parents, missing)
            document["reporting_amount"], document["exchange_rate"] = _converted(columns, rates, missing)
        document["outcome"] = self.outcome
        if missing:
            document["incomplete"] = missing
            document["incomplete_since"] = self.since or now
        elif columns is None:
            document["deleted"] = True
            document["expires"] = marker_expiry(now)
        return document if columns is None else document | columns

    def _intent(self, parents: Parents, missing: list[str]) -> Row | None:
        if self.intent_id is None:
            return None
        intent = parents.row(self.intent_id)
        if intent is None:
            missing.append("payment_intent")
        return intent

    def _card(self, parents: Parents, missing: list[str]) -> Row | None:
        if self.method_id is None:
            return None
        summary, is_complete = parents.card(self.method_id)
        if not is_complete:
            missing.append("card")
        return summary

    def _fraud_known_at(self) -> int | None:
        known = [child["created"] for child in self.children.get("early_fraud_warnings", {}).values()]
        known += [
            child["created"] for child in self.children.get("disputes", {}).values() if child["reason"] == "fraudulent"
        ]
        return min(known, default=None)


def source_row_of(table: str, reference: str | None) -> str | None:
    """The source row that a prefixed id refers to."""
    if reference is None:
        return None
    digits = reference[-32:]
    return f"{table}/{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def charge_id_of(change: Change) -> str | None:
    """The charge that a change belongs to; None for a child's delete, which carries the child's key alone."""
    row = change.row
    key = row["id"] if change.table == "charges" else row.get("charge_id")
    return key and prefixed("charges", key)


def _converted(columns: Row, rates: Rates, missing: list[str]) -> tuple[int | None, Row | None]:
    currency, amount = columns["currency"], columns["amount"]
    if currency == REPORTING_CURRENCY:
        return amount, None
    conversion = rates.conversion(currency, day_of(columns["created"]))
    converted = None if conversion is None else conversion.convert(amount)
    if converted is None:
        missing.append("exchange_rate")
    return converted, None if conversion is None else conversion.used


def _without_charge(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("charge_id", None)
    fields.pop("charge_created", None)
    return fields


def _created_and_id(child: Row) -> tuple[int, str]:
    return child["created"], child["id"]
