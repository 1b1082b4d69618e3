"""Documents into a collection, by comparing what is wanted with what is stored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import encode
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import NOT_ENCODABLE
from stripe_platform.features.offsets import LostRace
from stripe_platform.features.projection import Unprojectable
from stripe_platform.features.refusals import is_refusal, refused

# Topics keep changes 7 days: a change that a marker has to hold against is gone before the marker.
MARKER_LIFE = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Write:
    """One document to store in the place of `before` (None: it is new); `cause` is the last change that made it so."""

    before: RawBSONDocument | None
    document: dict[str, Any]
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
        try:
            return encode({"": value}) == encode({"": stored})
        except NOT_ENCODABLE:
            # Whoever writes it will be told.
            return False
    return bool(value == stored)


def marker_expiry(now: datetime) -> datetime:
    """When a document that only keeps a delete marker may leave."""
    return now + MARKER_LIFE


def write_ahead(
    session: ClientSession, documents: Documents, collection: str, chunks: Iterable[Sequence[Write]]
) -> Iterator[list[Write]]:
    """Store chunk after chunk, as `write_all`, each while the caller makes the next; those that differed, by chunk.

    The session belongs to this call until it has ended: whoever makes the chunks must not use it.
    """
    sent: Future[list[Write]] | None = None
    with ThreadPoolExecutor(1, "writes") as server:
        for chunk in chunks:
            written = sent.result() if sent is not None else None
            # The time limit of the caller holds in the thread too.
            sent = server.submit(copy_context().run, write_all, session, documents, collection, chunk)
            if written is not None:
                yield written
        if sent is not None:
            yield sent.result()


def write_all(session: ClientSession, documents: Documents, collection: str, writes: Sequence[Write]) -> list[Write]:
    """Store the documents; those that differed from what is stored.

    Only the fields that differ are sent: the server leaves the indexes of all others alone, which is most of the cost
    of an update. No value is ever read as an expression. `Unprojectable` with the causes of documents that cannot be
    written, or that the server refuses.
    """
    target = documents[collection]
    inserts = [write for write in writes if write.before is None]
    updates = [
        (write, UpdateOne({"_id": write.document["_id"]}, update))
        for write in writes
        if write.before is not None and (update := write.update())
    ]
    written = inserts + [write for write, _ in updates]
    try:
        if inserts:
            target.insert_many([write.document for write in inserts], ordered=False, session=session)
        if updates:
            target.bulk_write([update for _, update in updates], ordered=False, session=session)
        return written
    except OperationFailure as error:
        if not is_refusal(error):
            raise
    except NOT_ENCODABLE:
        pass
    # Raised outside the handlers: the driver's and the server's messages quote the document.
    if found := refused(documents, collection, [(write.document, write.cause) for write in written]):
        raise Unprojectable(*found)
    # The validator was altered meanwhile.
    raise LostRace
