"""What a drain did, and how it says that it could not do all of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stripe_platform.errors import StripePlatformError


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

    def then(self, later: "DrainReport") -> "DrainReport":
        """This drain and a later one of the same tables, taken together."""
        return DrainReport(
            {
                name: replace(
                    after,
                    rows=self.tables[name].rows + after.rows,
                    batches=self.tables[name].batches + after.batches,
                    begin=self.tables[name].begin,
                )
                for name, after in later.tables.items()
            },
            self.seconds + later.seconds,
        )


class TablesStopped(StripePlatformError):
    """Some tables could not be drained; the others were, as `report` tells."""

    def __init__(self, report: DrainReport, errors: Mapping[str, StripePlatformError]) -> None:
        super().__init__("; ".join(f"{table}: {error}" for table, error in errors.items()))
        self.report, self.errors = report, dict(errors)


class BoundsNotReached(StripePlatformError):
    """The log does not come up to the wanted offsets."""

    def __init__(self, missing: Mapping[str, int], seconds: float) -> None:
        tables = ", ".join(f"{table} by {offsets:,}" for table, offsets in missing.items())
        super().__init__(
            f"after {seconds:.0f} s of draining the raw change log is short of the wanted offsets: {tables}; "
            "if it still moves, run it again; if not, see Kafka and the connector in `stripe-platform status`"
        )
