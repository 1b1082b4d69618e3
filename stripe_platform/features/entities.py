"""Documents of one row each: customers, merchants and the outbox's events."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.raw_bson import RawBSONDocument

from stripe_platform.features.changes import Change
from stripe_platform.features.encoding import check_values
from stripe_platform.features.ids import prefixed, prefixed_object, with_references
from stripe_platform.features.positions import advanced, is_stale
from stripe_platform.features.projection import Unprojectable
from stripe_platform.features.unchanged import with_unchanged
from stripe_platform.features.writing import Write, marker_expiry

# Each table's collection has its name.
TABLES = ("customers", "merchants", "events")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_DATES = 253_402_300_800_000_000
_COMPOSED = ("_id", "_sources", "deleted", "expires", "created_at")


class Entity:
    """One row in a batch, and the document that it makes."""

    __slots__ = ("before", "columns", "id", "last", "position", "table")

    def __init__(self, table: str, id_: str, before: RawBSONDocument | None) -> None:
        self.table, self.id, self.before = table, id_, before
        self.last: Change | None = None
        self.columns: dict[str, Any] | None = None
        self.position: Mapping[str, Any] | None = None
        if before is not None:
            self.position = before["_sources"][table]
            if not before.get("deleted"):
                self.columns = {name: value for name, value in before.items() if name not in _COMPOSED}

    def take(self, change: Change) -> bool:
        """Apply a change; False when it is stale."""
        if is_stale(self.position, change):
            return False
        columns = None
        if change.op != "d":
            check_values(change)
            columns = with_references(with_unchanged(change, self.columns))
            del columns["id"]
            if self.table == "events":
                _check_created(change)
                columns["object_id"] = prefixed_object(columns["object_type"], columns["object_id"])
        self.columns, self.position, self.last = columns, advanced(self.position, change), change
        return True

    def write(self, now: datetime) -> Write:
        """The document to store."""
        assert self.last is not None  # noqa: S101 - only changed rows are written
        document: dict[str, Any] = {"_id": self.id}
        if self.columns is None:
            document |= {"deleted": True, "expires": marker_expiry(now)}
        else:
            document |= self.columns
            if self.table == "events":
                document["created_at"] = _EPOCH + timedelta(microseconds=self.columns["created"])
        document["_sources"] = {self.table: self.position}
        return Write(self.before, document, self.last)


def _check_created(change: Change) -> None:
    if not 0 <= change.row["created"] < _END_OF_DATES:
        raise Unprojectable((change, "column created is outside the years 1970 to 9999, and decides when it expires"))


def entity_id_of(change: Change) -> str:
    """The `_id` of the document that a change belongs to."""
    return prefixed(change.table, change.row["id"])
