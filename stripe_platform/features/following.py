"""Drains that stay at the topics' end: what they tell, and when they have stayed long enough."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class BatchDone:
    """What one committed batch came to: changes by table, stale ones among them, letters, seconds it took.

    `written` is {collection: documents}, of those that changed.
    """

    changes: Mapping[str, int]
    stale: int
    dead_letters: int
    seconds: float
    written: Mapping[str, int]


@dataclass(frozen=True)
class Follow:
    """Has a drain stay at the topics' end until `until` says so; `told` hears of each batch once it is committed."""

    until: Callable[[], bool]
    told: Callable[[BatchDone], None]


def until_quiet(quiet: timedelta, clock: Callable[[], float] = time.monotonic) -> Follow:
    """Stay until no change has come for so long."""
    last = clock()

    def told(done: BatchDone) -> None:
        nonlocal last
        if done.changes:
            last = clock()

    return Follow(lambda: clock() - last >= quiet.total_seconds(), told)
