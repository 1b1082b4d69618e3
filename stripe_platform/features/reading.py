"""Stored documents as the bytes that they are."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import RAW

# The server ends a reply at 16 MB anyway; with less it would split what one reply can hold.
_BATCH = 100_000


def raw_collection(documents: Documents, name: str) -> Collection[RawBSONDocument]:
    """A collection whose documents are not decoded until a field is asked for."""
    return cast("Collection[RawBSONDocument]", documents.get_collection(name, codec_options=RAW))


def find_raw(
    session: ClientSession | None, documents: Documents, collection: str, condition: Mapping[str, Any]
) -> Iterator[RawBSONDocument]:
    """The documents that the condition finds, all in as few replies as they fit in."""
    return iter(raw_collection(documents, collection).find(condition, session=session, batch_size=_BATCH))
