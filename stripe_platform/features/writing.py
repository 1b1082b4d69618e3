"""Documents into a collection, by comparing what is wanted with what is stored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import encode
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError

from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import TOO_LARGE, encoded
from stripe_platform.features.projection import Unprojectable
from stripe_platform.features.reading import raw_collection

# Topics keep changes 7 days: a change that a marker has to hold against is gone before the marker.
MARKER_LIFE = timedelta(days=14)

# The server's codes of a refusal that have a meaning of their own.
_REFUSALS = {121: "the collection's validator refuses it", 10334: TOO_LARGE, 17419: TOO_LARGE}


@dataclass(frozen=True, slots=True)
class Write:
    """One document to store in the place of `before` (None: it is new); `cause` is the last change that made it so."""

    before: RawBSONDocument | None
    document: Mapping[str, Any]
    cause: Change

    def update(self) -> dict[str, dict[str, Any]]:
        """What makes the stored document the new one; empty when it is that already.

        A field that differs is replaced whole, so that keys which a value lost vanish.
        """
        stored: Mapping[str, Any] = {} if self.before is None else dict(self.before.items())
        update = {}
        changed = {
            name: value
            for name, value in self.document.items()
            if name not in stored or not _is_same(value, stored[name])
        }
        if changed:
            update["$set"] = changed
        if len(stored) + len(changed) > len(self.document) and (gone := stored.keys() - self.document.keys()):
            update["$unset"] = dict.fromkeys(gone, "")
        return update


def _is_same(value: Any, stored: Any) -> bool:
    if value is stored:
        return True
    kind = stored.__class__
    if kind is RawBSONDocument or (kind is list and stored):
        return encode({"": value}) == encode({"": stored})
    return bool(value == stored)


def marker_expiry(now: datetime) -> datetime:
    """When a document that only keeps a delete marker may leave."""
    return now + MARKER_LIFE


def write_all(session: ClientSession, documents: Documents, collection: str, writes: Sequence[Write]) -> list[Write]:
    """Store the documents; those that differed from what is stored.

    Only the fields that differ are sent: the server leaves the indexes of all others alone, which is most of the cost
    of an update. No value is ever read as an expression. `Unprojectable` with the cause of a document that cannot be
    written, or that the server refuses.
    """
    target = raw_collection(documents, collection)
    new = [write for write in writes if write.before is None]
    if new:
        inserts = [encoded(write.document, write.cause) for write in new]
        _send(new, lambda: target.insert_many(inserts, ordered=False, session=session))
    differing = [(write, update) for write in writes if write.before is not None and (update := write.update())]
    if differing:
        known, updates = [], []
        for write, update in differing:
            encoded(update, write.cause)
            known.append(write)
            updates.append(UpdateOne({"_id": write.document["_id"]}, update))
        _send(known, lambda: target.bulk_write(updates, ordered=False, session=session))
    return new + [write for write, _ in differing]


def _send(writes: Sequence[Write], call: Callable[[], object]) -> None:
    try:
        call()
        return
    except BulkWriteError as error:
        refusals = (error.details or {}).get("writeErrors", [])
        if not refusals or error.has_error_label("TransientTransactionError"):
            raise
        refused, code = writes[refusals[0]["index"]], refusals[0]["code"]
    # Raised outside the handler: the server's message quotes the document.
    raise Unprojectable(refused.cause, _REFUSALS.get(code, f"MongoDB refuses it with error {code}"))
