"""The one way to MongoDB's documents."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ConnectionFailure

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings

Documents = Database[dict[str, Any]]

CONNECT_LIMIT_MS = 5_000
# A transaction of the sink takes a tenth of a second; building an index over a full collection takes longest.
ANSWER_LIMIT_MS = 60_000


class MongoUnavailable(StripePlatformError):
    """MongoDB cannot be reached, or went away while it was asked."""

    def __init__(self, settings: Settings, cause: ConnectionFailure) -> None:
        super().__init__(
            f"no answer from MongoDB at {settings.mongodb_host}:{settings.mongodb_port}, database "
            f"{settings.mongodb_database!r} ({type(cause).__name__}): start the stack with `make up`, or see "
            "`stripe-platform status` and `stripe-platform logs mongodb`"
        )


@contextmanager
def connect(settings: Settings) -> Iterator[Documents]:
    """The database of the documents; the client is closed at the end.

    Every call has a time limit. Writes and transactions are acknowledged when a majority has them in its journal.
    `MongoUnavailable` when the server cannot be reached in five seconds, or is lost on the way.
    """
    client: MongoClient[dict[str, Any]] = MongoClient(
        settings.mongodb_host,
        settings.mongodb_port,
        directConnection=True,
        serverSelectionTimeoutMS=CONNECT_LIMIT_MS,
        connectTimeoutMS=CONNECT_LIMIT_MS,
        socketTimeoutMS=ANSWER_LIMIT_MS,
        w="majority",
        journal=True,
        readConcernLevel="majority",
        tz_aware=True,
        appname="stripe_platform",
    )
    try:
        with client:
            yield client[settings.mongodb_database]
    except ConnectionFailure as error:
        raise MongoUnavailable(settings, error) from error
