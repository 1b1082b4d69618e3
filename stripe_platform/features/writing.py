"""Whole documents into a collection: inserted or replaced, never updated in part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError

from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.projection import Unprojectable
from stripe_platform.features.reading import raw_collection

# Topics keep changes 7 days: a change that a marker has to hold against is gone before the marker.
MARKER_LIFE = timedelta(days=14)

VALIDATION_FAILED = 121


@dataclass(frozen=True, slots=True)
class Write:
    """One document to store; `cause` is the last change that made it what it is."""

    id: str
    document: RawBSONDocument
    is_new: bool
    cause: Change


def marker_expiry(now: datetime) -> datetime:
    """When a document that only keeps a delete marker may leave."""
    return now + MARKER_LIFE


def write_all(session: ClientSession, documents: Documents, collection: str, writes: Sequence[Write]) -> None:
    """Store the documents; `Unprojectable` with the cause of the first that the server's validator refuses.

    A replaced document is replaced whole, so that removed keys vanish.
    """
    target = raw_collection(documents, collection)
    new = [write for write in writes if write.is_new]
    known = [write for write in writes if not write.is_new]
    if new:
        inserts = [write.document for write in new]
        _send(new, lambda: target.insert_many(inserts, ordered=False, session=session))
    if known:
        replacements: list[ReplaceOne[RawBSONDocument]] = [
            ReplaceOne({"_id": write.id}, write.document) for write in known
        ]
        _send(known, lambda: target.bulk_write(replacements, ordered=False, session=session))


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
    reason = "the collection's validator refuses it" if code == VALIDATION_FAILED else f"MongoDB's error {code}"
    raise Unprojectable(refused.cause, reason)
