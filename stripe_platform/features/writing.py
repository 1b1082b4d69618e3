"""Whole documents into a collection: inserted or replaced, never updated in part."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError

from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import RAW
from stripe_platform.features.projection import Unprojectable

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
    target = documents.get_collection(collection, codec_options=RAW)
    new = [write for write in writes if write.is_new]
    known = [write for write in writes if not write.is_new]
    if new:
        with _refusals_of(new):
            target.insert_many([write.document for write in new], ordered=False, session=session)
    if known:
        with _refusals_of(known):
            target.bulk_write(
                [ReplaceOne({"_id": write.id}, write.document) for write in known], ordered=False, session=session
            )


@contextmanager
def _refusals_of(writes: Sequence[Write]) -> Iterator[None]:
    """Turn the server's refusal of one document into the error that names its change, without its values."""
    try:
        yield
        return
    except BulkWriteError as error:
        refusals = (error.details or {}).get("writeErrors", [])
        if not refusals or error.has_error_label("TransientTransactionError"):
            raise
        refused, code = writes[refusals[0]["index"]], refusals[0]["code"]
    # Raised outside the handler: the server's message quotes the document.
    reason = "the collection's validator refuses it" if code == VALIDATION_FAILED else f"MongoDB's error {code}"
    raise Unprojectable(refused.cause, reason)
