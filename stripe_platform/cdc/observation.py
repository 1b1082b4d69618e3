"""What can be seen of the change stream from outside: where each topic begins and ends, and what hangs in it."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from stripe_platform.cdc.offsets import beginning_offsets, last_stable_offsets, topic_ids, written_offsets
from stripe_platform.cdc.record_times import first_record_times
from stripe_platform.cdc.slot import Slot
from stripe_platform.settings import Settings

# Kafka itself ends a transaction of Connect's after 60 s (`transaction.timeout.ms`): one that is older hangs.
LONGEST_TRANSACTION = timedelta(minutes=2)
# Of the log that PostgreSQL keeps for the slot: the other half is the time to mend the connector.
SLOT_WARNING = 0.5


@dataclass(frozen=True)
class TopicState:
    """One topic: its id and, by partition, where it begins, ends for readers (last stable) and ends (high water)."""

    topic_id: str
    begin: Mapping[int, int]
    last_stable: Mapping[int, int]
    high_water: Mapping[int, int]

    @property
    def messages(self) -> int:
        """Offsets that readers may read, markers of transactions among them."""
        return sum(self.last_stable.values()) - sum(self.begin.values())

    @property
    def data_version(self) -> str:
        """Another one as soon as a reader sees more, or the topic is another one under the name."""
        return f"{self.topic_id}:{sum(self.last_stable.values())}"


def topic_states(settings: Settings, tables: Iterable[str]) -> dict[str, TopicState]:
    """The topic of each table now; `TopicMissing` or `BrokerUnavailable`."""
    names = list(tables)
    ids = topic_ids(settings, names)
    begin, stable = beginning_offsets(settings, names), last_stable_offsets(settings, names)
    written = written_offsets(settings, names)
    return {table: TopicState(ids[table], begin[table], stable[table], written[table]) for table in names}


def open_transactions(settings: Settings, states: Mapping[str, TopicState]) -> dict[str, float]:
    """{table: seconds since the first record of its oldest transaction that has not ended}; others are left out.

    No reader gets past such a record, however much is written after it.
    """
    held = {
        (table, partition): stable
        for table, state in states.items()
        for partition, stable in state.last_stable.items()
        if state.high_water[partition] > stable
    }
    now = time.time()
    seconds: dict[str, float] = {}
    for (table, _), written_at in first_record_times(settings, held, in_open_transactions=True).items():
        seconds[table] = max(seconds.get(table, 0.0), now - written_at)
    return seconds


def is_stuck(open_seconds: float) -> bool:
    """Whether a transaction open for so long is one that nobody will end."""
    return open_seconds > LONGEST_TRANSACTION.total_seconds()


def share_kept(slot: Slot) -> float:
    """The part, 0 to 1, of what PostgreSQL keeps for a slot before it gives it up; 0 where it never does."""
    return slot.kept_bytes / slot.limit_bytes if slot.limit_bytes else 0.0
