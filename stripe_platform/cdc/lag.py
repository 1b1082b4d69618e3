"""How far a sink is behind the topics of captured tables."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.cdc.record_times import first_record_times
from stripe_platform.settings import Settings

# More than one drain takes in its 45 s: what is above does not go away with the next run.
MOST_UNREAD = 1_000_000
# The sensors ask for a drain within 20 s and a drain ends after 45 s: by now several have failed or did not come.
LONGEST_UNREAD = timedelta(minutes=5)


@dataclass(frozen=True)
class Lag:
    """What a sink has not taken of a table: `messages` unread, and the age of the oldest of them.

    Markers of transactions count as messages and have no age: `seconds` is 0 when nothing else is unread.
    """

    messages: int
    seconds: float

    @property
    def is_within_limits(self) -> bool:
        """Neither more unread than a drain takes, nor anything for longer than several drains last."""
        return self.messages <= MOST_UNREAD and self.seconds <= LONGEST_UNREAD.total_seconds()


def lag_behind(settings: Settings, next_offsets: Mapping[str, Mapping[int, int]]) -> dict[str, Lag]:
    """The lag of each table of a sink: last stable offset less the sink's own next offset, over its partitions.

    One round trip when nothing is unread; else the oldest unread record of each partition is read as well.
    """
    ends = last_stable_offsets(settings, next_offsets)
    unread = {
        (table, partition): (offset, end)
        for table, partitions in ends.items()
        for partition, offset in next_offsets[table].items()
        if (end := partitions[partition]) > offset
    }
    oldest = first_record_times(settings, {place: begin for place, (begin, _) in unread.items()})
    now = time.time()
    return {
        table: Lag(
            messages=sum(end - begin for (name, _), (begin, end) in unread.items() if name == table),
            seconds=max((now - at for (name, _), at in oldest.items() if name == table), default=0.0),
        )
        for table in ends
    }
