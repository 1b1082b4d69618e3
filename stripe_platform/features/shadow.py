"""Collections beside those in place, under other names of the same database, until they take their place."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from stripe_platform.features.collections import COLLECTIONS, ensure_collections
from stripe_platform.features.projection import Documents

_MARK = "__rebuild_"
_NAMESPACE_NOT_FOUND = 26


def shadow_name(collection: str, suffix: str) -> str:
    """What a collection is called beside the one in place."""
    return f"{collection}{_MARK}{suffix}"


class ShadowDatabase(Database[dict[str, Any]]):
    """The database for whoever writes to it, in which every collection is the one beside the one in place."""

    def __init__(self, documents: Documents, suffix: str) -> None:
        super().__init__(
            documents.client,
            documents.name,
            documents.codec_options,
            documents.read_preference,
            documents.write_concern,
            documents.read_concern,
        )
        self._suffix = suffix

    def __getitem__(self, name: str) -> Collection[dict[str, Any]]:
        """The collection beside the one of this name."""
        return super().__getitem__(shadow_name(name, self._suffix))

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Collection[dict[str, Any]]:
        """The collection beside the one of this name."""
        return super().get_collection(shadow_name(name, self._suffix), *arguments, **options)


def made(documents: Documents, collections: Iterable[str], suffix: str) -> ShadowDatabase:
    """The database beside, with these collections: empty, with the validators and indexes that they shall have."""
    wanted = set(collections)
    beside = [replace(each, name=shadow_name(each.name, suffix)) for each in COLLECTIONS if each.name in wanted]
    ensure_collections(documents, beside)
    return ShadowDatabase(documents, suffix)


def put_in_place(documents: Documents, collections: Sequence[str], suffix: str) -> None:
    """Have each take the place of its namesake; those that have done so already are left alone."""
    for name in collections:
        try:
            documents[shadow_name(name, suffix)].rename(name, dropTarget=True)
        except OperationFailure as failure:
            if failure.code != _NAMESPACE_NOT_FOUND:
                raise


def drop(documents: Documents, suffix: str = "") -> None:
    """Remove what lies beside under this suffix; without one, whatever was left beside by anyone."""
    for name in documents.list_collection_names(filter={"name": {"$regex": f"{_MARK}{suffix}"}}):
        documents.drop_collection(name)
