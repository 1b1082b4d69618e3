"""How long a table is left alone after drains that failed: what stopped one will stop the next."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=10)
# Long enough to hold as many failures as make the longest pause.
REMEMBERED = timedelta(hours=2)


@dataclass(frozen=True)
class FailedDrain:
    """A drain that was asked to come up to `bounds` and failed.

    `stopped` is {table: name of its error}; empty when the drain failed as a whole, as on a full disk.
    """

    run_id: str
    ended_at: datetime
    bounds: Mapping[str, Mapping[int, int]]
    stopped: Mapping[str, str]

    def concerns(self, table: str, next_offsets: Callable[[str], Mapping[int, int]]) -> bool:
        """It kept this table from its bounds, and nothing has brought the log there since."""
        if self.stopped:
            return table in self.stopped and self._is_short(table, next_offsets)
        return any(self._is_short(asked, next_offsets) for asked in self.bounds)

    def _is_short(self, table: str, next_offsets: Callable[[str], Mapping[int, int]]) -> bool:
        stored = next_offsets(table)
        return any(stored[partition] < bound for partition, bound in self.bounds.get(table, {}).items())

    def reason(self, table: str) -> str:
        """What is known of it here, in words; the run has the rest."""
        return f"{self.stopped.get(table, 'the drain failed')}, see run {self.run_id[:8]}"


@dataclass(frozen=True)
class Pause:
    """A table is not drained before `until`."""

    until: datetime
    reason: str


def pause_of(
    table: str, failed: Iterable[FailedDrain], next_offsets: Callable[[str], Mapping[int, int]]
) -> Pause | None:
    """From the last failed drain on: 30 s after one, twice as long after each further one, 10 min at most.

    None when no drain failed, or the log has come to where each of them should have brought it, by whatever run.
    """
    failures = [drain for drain in failed if drain.concerns(table, next_offsets)]
    if not failures:
        return None
    last = max(failures, key=lambda drain: drain.ended_at)
    # Doubled a hundred times it would be past what a time span can be.
    length = min(FIRST_PAUSE * 2 ** min(len(failures) - 1, 10), LONGEST_PAUSE)
    return Pause(last.ended_at + length, last.reason(table))
