"""What Dagster is told of work that no run did: per asset, on change, and at most every five minutes."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dagster as dg

from stripe_platform.cdc.lag import Lag
from stripe_platform.features import dead_letters
from stripe_platform.features.assets import TABLES_OF, collection_key, state_of
from stripe_platform.features.projection import Documents
from stripe_platform.raw.assets import raw_key
from stripe_platform.raw.change_log import row_count
from stripe_platform.settings import Settings
from stripe_platform.stream.progress import Progress

# A report takes 4.4 KB of Dagster's storage for ever.
REPORTED_EVERY = timedelta(minutes=5)


@dataclass(frozen=True)
class Due:
    """What one asset of a sink is to be reported with: `name` is that of its table or collection."""

    sink: str
    name: str
    counts: Mapping[str, int]


class Reports:
    """Gathers progress, from any thread, until it is time to report it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._reported_at: dict[tuple[str, str], float] = {}

    def progressed(self, sink: str, progress: Progress) -> None:
        """Note committed work for the assets that it changed."""
        self._note(Due(sink, name, counts) for name, counts in _by_name(sink, progress).items())

    def due(self, now: float | None = None) -> list[Due]:
        """The reports whose time has come; they are taken as made unless they are put back."""
        now = time.monotonic() if now is None else now
        with self._lock:
            ready = [
                asset
                for asset in self._counts
                if now - self._reported_at.get(asset, float("-inf")) >= REPORTED_EVERY.total_seconds()
            ]
            self._reported_at |= dict.fromkeys(ready, now)
            return [Due(*asset, self._counts.pop(asset)) for asset in ready]

    def put_back(self, due: Iterable[Due]) -> None:
        """These were not made: they are due again at once, with what came since."""
        due = list(due)
        self._note(due)
        with self._lock:
            for report in due:
                self._reported_at.pop((report.sink, report.name), None)

    def _note(self, due: Iterable[Due]) -> None:
        with self._lock:
            for report in due:
                self._counts.setdefault((report.sink, report.name), Counter()).update(report.counts)


def _by_name(sink: str, progress: Progress) -> Mapping[str, Mapping[str, int]]:
    if sink == "raw":
        return {table: {"rows_added": rows} for table, rows in progress.changes.items()}
    written = {**progress.written, dead_letters.COLLECTION: progress.dead_letters}
    return {name: {"documents_written": documents} for name, documents in written.items() if documents}


def of_log(settings: Settings, due: Due, lags: Mapping[str, Lag]) -> dg.AssetMaterialization:
    """The report of a raw change log."""
    state = {"dagster/row_count": row_count(settings, due.name), "lag": lags[due.name].messages}
    return dg.AssetMaterialization(raw_key(due.name), metadata={**state, **due.counts})


def of_collection(documents: Documents, due: Due, lags: Mapping[str, Lag]) -> dg.AssetMaterialization:
    """The report of a collection of MongoDB, with the lag of its own topics."""
    tables = TABLES_OF[due.name]
    lag = sum(lags[table].messages for table in tables) if lags.keys() >= set(tables) else None
    metadata: dict[str, Any] = {**state_of(documents, due.name, lag=lag), **due.counts}
    return dg.AssetMaterialization(collection_key(due.name), metadata=metadata)
