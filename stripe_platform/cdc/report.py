"""What a drain of a sink did, how it says that it could not do all of it, and draining until it has."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self, TypeVar

from stripe_platform.errors import StripePlatformError

Offsets = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class TableDrained:
    """What one drain did for one table; `begin` and `end` are its next offsets before and after."""

    rows: int
    batches: int
    begin: dict[int, int]
    end: dict[int, int]
    lag: int


@dataclass(frozen=True)
class DrainReport:
    """What one drain did; `lag` is the messages that were left unread, markers of transactions among them."""

    tables: dict[str, TableDrained]
    seconds: float

    @property
    def rows(self) -> int:
        """Rows written, over all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def lag(self) -> int:
        """Messages left unread, over all tables."""
        return sum(table.lag for table in self.tables.values())

    @property
    def moved(self) -> bool:
        """Some offset is further than before."""
        return any(table.begin != table.end for table in self.tables.values())

    def then(self, later: Self) -> Self:
        """This drain and a later one of the same tables, taken together."""
        tables = {
            name: replace(
                after,
                rows=self.tables[name].rows + after.rows,
                batches=self.tables[name].batches + after.batches,
                begin=self.tables[name].begin,
            )
            for name, after in later.tables.items()
        }
        return replace(later, tables=tables, seconds=self.seconds + later.seconds)

    def short_of(self, bounds: Offsets) -> dict[str, int]:
        """{table: offsets between where this drain ended and the bounds}, of the tables that lack any."""
        short = {
            table: sum(max(0, bound - self.tables[table].end[place]) for place, bound in partitions.items())
            for table, partitions in bounds.items()
        }
        return {table: offsets for table, offsets in short.items() if offsets}


class TablesStopped(StripePlatformError):
    """Some tables could not be drained; the others were, as `report` tells."""

    def __init__(self, report: DrainReport, errors: Mapping[str, StripePlatformError]) -> None:
        super().__init__("; ".join(f"{table}: {error}" for table, error in errors.items()))
        self.report, self.errors = report, dict(errors)

    @property
    def others(self) -> set[str]:
        """The tables that can go on."""
        return self.report.tables.keys() - self.errors.keys()


class BoundsNotReached(StripePlatformError):
    """A store does not come up to the wanted offsets."""

    def __init__(self, store: str, missing: Mapping[str, int], seconds: float) -> None:
        tables = ", ".join(f"{table} by {offsets:,}" for table, offsets in missing.items())
        super().__init__(
            f"after {seconds:.0f} s of draining {store} is short of the wanted offsets: {tables}; "
            "if it still moves, run it again; if not, see Kafka and the connector in `stripe-platform status`"
        )


Report = TypeVar("Report", bound=DrainReport)


def drain_until(store: str, bounds: Offsets, drain: Callable[[], Report], limit: timedelta) -> Report:
    """Drain again and again until the store comes up to the bounds, and return all drains taken together.

    `BoundsNotReached` after `limit`, or when a whole drain found nothing more to take.
    """
    started = time.monotonic()
    report = drain()
    while report.short_of(bounds):
        latest = drain()
        # Another drain may have taken what this one found no more of.
        report = report.then(latest)
        waited = time.monotonic() - started
        is_over = not latest.moved or waited > limit.total_seconds()
        if is_over and (missing := report.short_of(bounds)):
            raise BoundsNotReached(store, missing, waited)
    return report
