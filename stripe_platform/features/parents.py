"""Rows that many charges embed, kept once in `source_rows`: intents, payment methods, cards, currencies and rates."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession

from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import check_values, encode
from stripe_platform.features.ids import PREFIXES, prefixed, with_references
from stripe_platform.features.positions import advanced, is_stale
from stripe_platform.features.projection import Unprojectable
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

Row = Mapping[str, Any]


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
                raise Unprojectable(change, "column rate is not a number")
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
        return Write(self.id, encode(document, self.last), is_new=self.before is None, cause=self.last)


class Parents:
    """The source rows that a batch changes or needs, read in few calls."""

    def __init__(self, session: ClientSession | None, documents: Documents) -> None:
        self._session, self._documents = session, documents
        self._rows: dict[str, SourceRow] = {}
        self.changed: list[SourceRow] = []
        self.stale = 0

    def load(self, ids: Iterable[str]) -> None:
        """Read those that have not been read."""
        wanted = list({id_ for id_ in ids if id_ not in self._rows})
        if not wanted:
            return
        for id_ in wanted:
            self._rows[id_] = SourceRow(id_, None)
        for found in find_raw(self._session, self._documents, COLLECTION, {"_id": {"$in": wanted}}):
            self._rows[found["_id"]] = SourceRow(found["_id"], found)

    def take(self, changes: Sequence[Change]) -> None:
        """Apply the changes of source rows, in their order."""
        keyed = [(row_id(c.table, *(c.row[column] for column in KEYS[c.table])), c) for c in changes]
        self.load(id_ for id_, _ in keyed)
        for id_, change in keyed:
            if not self._rows[id_].take(change):
                self.stale += 1
        self.changed = [row for row in self._rows.values() if row.last is not None]

    def row(self, id_: str) -> Row | None:
        """A loaded row as the batch leaves it; None when it is deleted or has not come."""
        return self._rows[id_].row

    def last_change(self, id_: str) -> Change | None:
        """The batch's last change of a row; None when it has none."""
        found = self._rows.get(id_)
        return None if found is None else found.last

    def writes(self, now: datetime) -> list[Write]:
        """What is to be stored of the changed rows."""
        return [row.write(now) for row in self.changed]
