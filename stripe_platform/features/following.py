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
    """Has a drain stay at the topics' end until `until` says so, or no change has come for `quiet`.

    `told` hears of each batch once it is committed. `until` ends the drain wherever it is, quiet only at its bounds.
    """

    until: Callable[[], bool] = lambda: False
    told: Callable[[BatchDone], None] = lambda _: None
    quiet: timedelta | None = None


class Silence:
    """How long no change has come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """A change has come, or the drain has just begun to read."""
        self._since = self._clock()

    def has_lasted(self, quiet: timedelta | None) -> bool:
        """Whether it is as long as this; None: nothing is long enough."""
        return quiet is not None and self._clock() - self._since >= quiet.total_seconds()
