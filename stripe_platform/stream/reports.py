"""What Dagster is told of work that no run did: per asset, on change, and at most every five minutes."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from stripe_platform.features.assets import DRAINED, collection_key
from stripe_platform.raw.assets import raw_key
from stripe_platform.stream.progress import Progress

# A report takes 4.4 KB of Dagster's storage for ever.
REPORTED_EVERY = timedelta(minutes=5)


class Reports:
    """Gathers progress, from any thread, until it is time to report it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: dict[dg.AssetKey, Counter[str]] = {}
        self._reported_at: dict[dg.AssetKey, float] = {}

    def progressed(self, sink: str, progress: Progress) -> None:
        """Note committed work for the assets that it changed."""
        with self._lock:
            for key, told in _by_asset(sink, progress).items():
                self._changes.setdefault(key, Counter()).update(told)

    def due(self, now: float | None = None) -> list[dg.AssetMaterialization]:
        """The reports whose time has come; they are taken as made."""
        now = time.monotonic() if now is None else now
        with self._lock:
            ready = [
                key
                for key in self._changes
                if now - self._reported_at.get(key, float("-inf")) >= REPORTED_EVERY.total_seconds()
            ]
            self._reported_at |= dict.fromkeys(ready, now)
            return [dg.AssetMaterialization(key, metadata=dict(self._changes.pop(key))) for key in ready]


def _by_asset(sink: str, progress: Progress) -> Mapping[dg.AssetKey, Mapping[str, int]]:
    if sink == "raw":
        return {raw_key(table): {"rows_added": rows} for table, rows in progress.changes.items()}
    changes = sum(progress.changes.values())
    if not changes and not progress.dead_letters:
        return {}
    told = {"changes": changes, "changes_stale": progress.stale, "dead_letters": progress.dead_letters}
    return {collection_key(collection.name): told for collection in DRAINED}
