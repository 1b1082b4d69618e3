"""When a sink's lag asks for a drain, and how the request is written down."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from stripe_platform.cdc.lag import Lag
from stripe_platform.cdc.report import Offsets


@dataclass(frozen=True)
class Threshold:
    """From where on a table's lag is worth a run: so many unread, or something unread for so long."""

    messages: int
    age: timedelta

    def is_passed(self, behind: Lag) -> bool:
        """Whether the table is to be drained."""
        return behind.messages >= self.messages or behind.seconds >= self.age.total_seconds()

    def why_not(self, lags: Mapping[str, Lag]) -> str:
        """Why none of these tables is to be drained, for people."""
        messages = sum(behind.messages for behind in lags.values())
        oldest = max(behind.seconds for behind in lags.values())
        return (
            f"{messages:,} unread, the oldest for {oldest:.1f} s: a drain starts at {self.messages:,} in one table "
            f"or {self.age.total_seconds():.0f} s"
        )


def run_key(bounds: Offsets, now: datetime) -> str:
    """One key per bounds and minute: a doubled tick asks once, and a failed drain is tried again after its pause."""
    text = json.dumps(as_text(bounds), sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{now:%Y%m%dT%H%M}"


def as_text(bounds: Offsets) -> dict[str, dict[str, int]]:
    """The bounds as Dagster's configuration takes them: it knows no integer keys."""
    return {
        table: {str(partition): offset for partition, offset in partitions.items()}
        for table, partitions in bounds.items()
    }
