"""Values as BSON, and what cannot become a document."""

import math
from collections.abc import Mapping
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from stripe_platform.features.changes import Change
from stripe_platform.features.projection import Unprojectable

# Stored documents are read as they lie: what a change leaves alone is written back byte for byte, whatever its keys.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)

# MongoDB's documented limits; the server itself bears 180 levels.
LARGEST_DOCUMENT = 16 * 1024 * 1024
TOO_LARGE = "its document would be larger than 16 MiB"
DEEPEST_LEVEL = 100

# What the driver raises for a document that it cannot write; `BSONError` also when it is too large.
NOT_ENCODABLE = (BSONError, OverflowError, UnicodeEncodeError, RecursionError)


def encoded(document: Mapping[str, Any], change: Change) -> RawBSONDocument:
    """The document as bytes; `Unprojectable` when it cannot be stored, with `change` as the one that made it so."""
    try:
        data = bson.encode(document)
    except NOT_ENCODABLE:
        # Raised outside the handler: the driver's message quotes the value.
        data = None
    if data is None:
        raise Unprojectable((change, "it holds a value that BSON has no type for"))
    if len(data) > LARGEST_DOCUMENT:
        raise Unprojectable((change, TOO_LARGE))
    return RawBSONDocument(data)


def check_values(change: Change) -> None:
    """`Unprojectable` for parsed JSON that BSON has no place for, or that parsing has made another number."""
    for value in change.row.values():
        kind = value.__class__
        if (kind is dict or kind is list) and value and (fault := _fault(value)):
            name = next(name for name, held in change.row.items() if held is value)
            raise Unprojectable((change, f"column {name} {fault}"))


def _fault(value: Any, level: int = 1) -> str | None:
    kind = value.__class__
    if kind is int:
        return None if -(2**63) <= value < 2**63 else "holds an integer beyond 64 bits"
    if kind is float:
        return None if math.isfinite(value) else "holds a number beyond the range of a double"
    if kind is not dict and kind is not list:
        return None
    if level > DEEPEST_LEVEL:
        return f"is nested deeper than {DEEPEST_LEVEL} levels"
    held = value.values() if kind is dict else value
    return next((fault for inner in held if (fault := _fault(inner, level + 1))), None)
