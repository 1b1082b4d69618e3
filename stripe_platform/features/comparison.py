"""Whether two collections hold the same documents, but for what only the clock says."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.raw_bson import RawBSONDocument

from stripe_platform.features.collections import EVENTS_KEPT_DAYS
from stripe_platform.features.payments import Entity
from stripe_platform.features.projection import Documents
from stripe_platform.features.reading import raw_collection
from stripe_platform.features.tiles import KEPT_AFTER_LAST_WRITE
from stripe_platform.features.windows import day_of

_CLOCKS = ("expires", "incomplete_since")
_TILES = frozenset(entity.collection for entity in Entity)


def documents_that_differ(documents: Documents, name: str, beside: str) -> int:
    """How many documents of the collection `name` are not those of `beside`: other ones, missing, or too many.

    A document that only keeps a delete marker counts as none. Nor does one count that expiry may have taken from
    one of the two: an event, or a day of features that is old enough.
    """
    now = datetime.now(UTC)
    # Expiry comes a minute late.
    counts: Mapping[str, Any] = {"$nor": [{"created_at": {"$lt": now - timedelta(days=EVENTS_KEPT_DAYS, hours=-1)}}]}
    may_be_gone = None
    if name in _TILES:
        may_be_gone = day_of(int(now.timestamp() * 1_000_000)) - KEPT_AFTER_LAST_WRITE.days
    else:
        counts = {**counts, "expires": {"$exists": False}}
    return sum(
        one is None or not _is_same(one, other)
        for one, other in _pairs(_sorted(documents, name, counts), _sorted(documents, beside, counts))
        if not (one is None and may_be_gone is not None and other is not None and other["_id"]["day"] <= may_be_gone)
    )


def _sorted(documents: Documents, name: str, counts: Mapping[str, Any]) -> Iterator[RawBSONDocument]:
    return iter(raw_collection(documents, name).find(counts).sort("_id", 1))


_Pair = tuple[RawBSONDocument | None, RawBSONDocument | None]


def _pairs(one: Iterator[RawBSONDocument], other: Iterator[RawBSONDocument]) -> Iterator[_Pair]:
    """The documents of both by `_id`, None where one has none."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and _key(left) < _key(right)):
            yield left, None
            left = next(one, None)
        elif left is None or _key(right) < _key(left):
            yield None, right
            right = next(other, None)
        else:
            yield left, right
            left, right = next(one, None), next(other, None)


def _key(document: RawBSONDocument) -> tuple[Any, ...]:
    # As the server sorts them: a document by its fields, a text by its code points.
    key = document["_id"]
    return tuple(key.values()) if isinstance(key, RawBSONDocument) else (key,)


def _is_same(one: RawBSONDocument, other: RawBSONDocument | None) -> bool:
    if other is None:
        return False
    return one.raw == other.raw or _without_clocks(one) == _without_clocks(other)


def _without_clocks(document: RawBSONDocument) -> Any:
    return _plain({name: value for name, value in document.items() if name not in _CLOCKS})


def _plain(value: Any) -> Any:
    # The order of keys says nothing: a field that was replaced stands behind those that were not.
    if isinstance(value, Mapping):
        return {name: _plain(held) for name, held in value.items()}
    if isinstance(value, list):
        return [_plain(held) for held in value]
    # True is not 1.
    return (isinstance(value, bool), value)
