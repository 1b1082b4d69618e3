"""Many things, some at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def in_slices(many: Iterable[T], size: int) -> Iterator[list[T]]:
    """All of them in their order, in lists of `size`; the last one may be shorter."""
    left = iter(many)
    while some := list(islice(left, size)):
        yield some
