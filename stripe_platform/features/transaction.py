"""Transactions on MongoDB: retried by the book, within a limit, and their failures named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pymongo
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from stripe_platform.errors import StripePlatformError
from stripe_platform.features.offsets import LostRace
from stripe_platform.features.projection import Documents
from stripe_platform.settings import Settings

T = TypeVar("T")

# Longer than an election takes, shorter than the minute for which the server lets a transaction live.
TRANSACTION_LIMIT = timedelta(seconds=30)

WRITERS = "sink_writers"
# Of a writer that did not end in order, its session is forgotten after it.
WRITERS_ARE_KNOWN = timedelta(days=1)

FORGET_LIMIT = timedelta(seconds=5)

INTERRUPTED = 11601


class StoreFailed(StripePlatformError):
    """MongoDB did not answer, or refused what was asked; what was not committed is not there."""

    def __init__(self, settings: Settings, failure: PyMongoError) -> None:
        # The message itself may quote a document.
        super().__init__(
            f"MongoDB at {settings.mongodb_host}:{settings.mongodb_port}: {_named(failure)}; "
            "is it running? see `stripe-platform status` and `stripe-platform logs mongodb`, and start it with "
            "`stripe-platform up`; what was not stored is read again"
        )


@contextmanager
def named_failures(settings: Settings) -> Iterator[None]:
    """Turn the driver's errors into `StoreFailed`."""
    try:
        yield
    except PyMongoError as failure:
        # Its message is not to be shown as the cause either.
        raise StoreFailed(settings, failure) from None


@contextmanager
def writing(settings: Settings, documents: Documents) -> Iterator[ClientSession]:
    """The session of a new writer, for one thread; the open transactions of writers before it end now.

    The server keeps the transaction of a writer that was killed for a minute, and with it the document that every
    writer begins with. A writer that lives loses the running transaction at most, and begins it again.
    """
    with named_failures(settings), documents.client.start_session() as session:
        known = documents[WRITERS]
        now = datetime.now(UTC)
        if others := [{"id": writer["_id"]} for writer in known.find()]:
            documents.command("killSessions", others)
        known.delete_many({"since": {"$lt": now - WRITERS_ARE_KNOWN}})
        id = session.session_id["id"]
        known.replace_one({"_id": id}, {"since": now}, upsert=True)
        try:
            yield session
        finally:
            # How the writer ended is what counts; its record is forgotten after a day anyway.
            with suppress(PyMongoError), pymongo.timeout(FORGET_LIMIT.total_seconds()):
                known.delete_one({"_id": id})


def in_transaction(settings: Settings, session: ClientSession, body: Callable[[ClientSession], T]) -> T:
    """Call `body` inside a transaction and commit what it did, durably; return what it returned.

    After a passing failure `body` is called again in a new transaction, and a commit whose answer was lost is asked
    for again: it is done once. `StoreFailed` after `TRANSACTION_LIMIT`, or for a lasting failure; then it may, if an
    answer was lost, have been committed. `LostRace` when a new writer ended it. Any other error of `body` leaves
    nothing behind.
    """
    with named_failures(settings), pymongo.timeout(TRANSACTION_LIMIT.total_seconds()):
        try:
            return session.with_transaction(
                body, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )
        except OperationFailure as failure:
            if failure.code == INTERRUPTED:
                raise LostRace from failure
            raise


def _named(failure: PyMongoError) -> str:
    code = failure.code if isinstance(failure, OperationFailure) else None
    if isinstance(failure, BulkWriteError):
        refused = failure.details["writeErrors"] or failure.details["writeConcernErrors"]
        code = refused[0]["code"] if refused else None
    return type(failure).__name__ if code is None else f"{type(failure).__name__} (code {code})"
