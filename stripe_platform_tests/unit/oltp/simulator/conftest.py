"""Histories without a database, each made once for all tests of a run."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache

import polars as pl
import pytest

from stripe_platform.oltp.simulator.books import World
from stripe_platform.oltp.simulator.run import Run

UNTIL = date(2026, 11, 1)


@dataclass(frozen=True)
class History:
    """All rows of a run by table, whatever batch they are of, and what is fraud."""

    run: Run
    tables: dict[str, pl.DataFrame]
    truth: pl.DataFrame

    def __getitem__(self, table: str) -> pl.DataFrame:
        """The rows of a table; a table that the run has no rows of is empty and without columns."""
        return self.tables.get(table, pl.DataFrame())

    @property
    def end(self) -> datetime:
        return datetime(UNTIL.year, UNTIL.month, UNTIL.day, tzinfo=UTC)

    @property
    def start(self) -> datetime:
        return self.end - timedelta(days=self.run.days)


@cache
def _history(payments: int, days: int, seed: int) -> History:
    run = Run(payments, days, seed, UNTIL)
    world = World.of(run)
    batches = [world.books(batch) for batch in range(world.batches)]
    names = dict.fromkeys(name for books in batches for name in books.tables)
    tables = {
        name: pl.concat([books.tables[name] for books in batches if name in books.tables], how="diagonal_relaxed")
        for name in names
    }
    tables["card_fingerprints"] = world.cards()
    return History(run, tables, pl.concat([books.truth for books in batches]))


@pytest.fixture(scope="session")
def history():  # type: ignore[no-untyped-def]
    """Makes the history of `payments, days, seed`."""
    return _history


@pytest.fixture(scope="session")
def quarter() -> History:
    """A quarter of a year of a company of some size: shares can be told from chance."""
    return _history(25_000, 90, 7)
