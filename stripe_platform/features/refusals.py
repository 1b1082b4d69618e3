"""Documents that MongoDB refuses: which they are, and whose changes made them so."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymongo.errors import BulkWriteError, OperationFailure

from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import LARGEST_DOCUMENT, TOO_LARGE, encoded
from stripe_platform.features.projection import Unprojectable

# A document, and the last change that made it so.
Caused = tuple[Mapping[str, Any], Change]

# The server's codes that judge a document: by the validator, and by its size after an update. All others are of the
# call: the change is sound, and is to be tried again.
_BY_VALIDATOR = 121
_BY_SIZE = (10334, 17419)

_ROOM_OF_A_COMMAND = 64 * 1024
# Half of what one command may hold.
_BYTES_AT_ONCE = 8 * 1024 * 1024


def is_refusal(error: OperationFailure) -> bool:
    """Whether documents were judged, and not the call."""
    if isinstance(error, BulkWriteError):
        codes = {refusal["code"] for refusal in error.details["writeErrors"]}
    else:
        codes = {error.code}
    is_passing = error.has_error_label("TransientTransactionError")
    return bool(codes) and codes <= {_BY_VALIDATOR, *_BY_SIZE} and not is_passing


def refused(documents: Documents, collection: str, stored: Sequence[Caused]) -> list[tuple[Change, str]]:
    """All changes whose documents the collection would refuse, with the reason; nothing is written.

    In a transaction the server names the first one alone, and each other would cost the whole batch once more.
    """
    sizes: list[int] = []
    fitting: list[Caused] = []
    found: list[tuple[Change, str]] = []
    for document, cause in stored:
        try:
            sizes.append(len(encoded(document, cause).raw))
            fitting.append((document, cause))
        except Unprojectable as error:
            found += error.refused
    (options,) = (each["options"] for each in documents.list_collections(filter={"name": collection}))
    for some in _in_parts(fitting, sizes):
        found += _refused_by(options["validator"], documents, some)
    if not found and max(sizes) > LARGEST_DOCUMENT - _ROOM_OF_A_COMMAND:
        # It fits, but not with what the command adds to it.
        found.append((fitting[sizes.index(max(sizes))][1], TOO_LARGE))
    return found


def _in_parts(stored: Sequence[Caused], sizes: Sequence[int]) -> Iterator[list[Caused]]:
    part: list[Caused] = []
    size = 0
    for caused, its_size in zip(stored, sizes, strict=True):
        if part and size + its_size > _BYTES_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(caused)
        size += its_size
    if part:
        yield part


def _refused_by(
    validator: Mapping[str, Any], documents: Documents, stored: Sequence[Caused]
) -> Iterator[tuple[Change, str]]:
    causes = {document["_id"]: cause for document, cause in stored}
    question: list[Mapping[str, Any]] = [
        {"$documents": {"$literal": [document for document, _ in stored]}},
        {"$match": {"$nor": [validator]}},
        {"$project": {"_id": 1}},
    ]
    for answer in documents.aggregate(question):
        yield causes[answer["_id"]], "the collection's validator refuses it"
