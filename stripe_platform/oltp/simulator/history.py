"""A company's past into PostgreSQL: by COPY, batch after batch, and each batch only once.

A batch is some merchants with all that belongs to them, written in one transaction with the record that it was
written: after every commit the books are whole. A run that was killed goes on with the next batch; what it
writes follows from its arguments alone.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl
import psycopg

from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.bulk import copy_in
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.partitions import ensure_partitions, months_between
from stripe_platform.oltp.simulator.books import World
from stripe_platform.oltp.simulator.run import Run
from stripe_platform.settings import Settings

Progress = Callable[[int, int], None]
"""Called with the payments written so far and those of the run."""

MOST_DAYS = 3650
_LOCK = 7_316_410_054
_WRITERS = 2
_HAS_HISTORY = """
WITH runs AS (SELECT (payments, days, seed) = (%s, %s, %s) AS is_that_one FROM payments.simulations)
SELECT EXISTS (SELECT FROM runs WHERE NOT is_that_one)
    OR (
        NOT EXISTS (SELECT FROM runs WHERE is_that_one)
        AND (EXISTS (SELECT FROM payments.charges) OR EXISTS (SELECT FROM payments.payment_intents))
    )
"""
_KEY = "seed = %s AND payments = %s AND days = %s AND until = %s"


class NoSuchHistory(StripePlatformError):
    """The arguments of a run make no sense."""


class SimulationStopped(StripePlatformError):
    """PostgreSQL refused or was lost in the middle; what is committed stays."""

    def __init__(self, error: psycopg.Error) -> None:
        # The primary message alone: the detail may hold row values.
        reason = error.diag.message_primary or error.__class__.__name__
        super().__init__(
            f"the simulation stopped ({reason}); start it again with the same arguments to go on from there"
        )


@dataclass(frozen=True)
class HistoryReport:
    """What a call wrote: `rows` by table, all of them 0 when the run was complete before."""

    run: Run
    batches: int
    batches_written: int
    rows: dict[str, int]
    seconds: float

    @property
    def payments(self) -> int:
        """The payments that this call wrote."""
        return self.rows.get("payment_intents", 0)


def planned_run(payments: int, days: int, seed: int, until: date) -> Run:
    """A run of these arguments; raises `NoSuchHistory` for arguments that make none."""
    if not (1 <= payments < 2**31 and 1 <= days <= MOST_DAYS and 0 <= seed < 2**63):
        raise NoSuchHistory(
            f"a history has 1 or more payments, 1 to {MOST_DAYS} days and a seed of 0 or more: change the arguments"
        )
    return Run(payments, days, seed, until)


def simulate_history(
    settings: Settings,
    payments: int,
    days: int,
    seed: int = 1,
    *,
    until: date | None = None,
    progress: Progress | None = None,
) -> HistoryReport:
    """Write the payments of the `days` days before `until`; what is written already is left alone.

    Without `until` a run of the same other arguments is gone on with, however old; the first one ends today at
    midnight UTC. Raises `NoSuchHistory`, `SimulationStopped` when PostgreSQL fails, or that the disk is full.
    """
    started = time.monotonic()
    run = planned_run(payments, days, seed, until or datetime.now(UTC).date())
    try:
        with connect(settings, autocommit=True) as connection, _alone(connection):
            if until is None:
                run = _recorded(connection, run)
            return _write(settings, connection, run, progress or _silent, started)
    except psycopg.Error as error:
        raise SimulationStopped(error) from error


def has_history(settings: Settings, but: tuple[int, int, int]) -> bool:
    """Whether there are payments, simulated, live or imported, other than those of a run of these
    `payments, days, seed`, or another run has been begun.

    Once a run of these has been begun, payments alone tell nothing: they may be its own.
    """
    with connect(settings) as connection:
        return connection.execute(_HAS_HISTORY, but).fetchone() == (True,)


def _silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    _prepare(connection)
    if connection.execute("SELECT to_regclass('payments.simulations')").fetchone() == (None,):
        raise StripePlatformError("the payments tables are not there: run the migrations (`stripe-platform up`)")
    if connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() == (False,):
        raise StripePlatformError("another simulation is writing to this database: wait until it has ended")
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _recorded(connection: psycopg.Connection, run: Run) -> Run:
    known = connection.execute(
        "SELECT until FROM payments.simulations WHERE seed = %s AND payments = %s AND days = %s ORDER BY started_at",
        [run.seed, run.payments, run.days],
    ).fetchone()
    return run if known is None else Run(run.payments, run.days, run.seed, known[0])


def _write(
    settings: Settings, connection: psycopg.Connection, run: Run, progress: Progress, started: float
) -> HistoryReport:
    key = (run.seed, run.payments, run.days, run.until)
    record = connection.execute(f"SELECT batches_done, batches FROM payments.simulations WHERE {_KEY}", key).fetchone()
    if record is not None and record[0] == record[1]:
        return HistoryReport(run, record[1], 0, {}, time.monotonic() - started)
    world = World.of(run)
    ensure_partitions(connection, months_between(run.first_instant, run.last_instant))
    rows: Counter[str] = Counter()
    if record is None:
        rows["card_fingerprints"] = _begin(connection, key, world)
    begun = 0 if record is None else int(record[0])
    quotas = world.population.merchants.group_by("batch").agg(pl.col("quota").sum()).sort("batch")["quota"].to_list()
    done = sum(quotas[:begun])
    progress(done, run.payments)
    for batch, written in _Writers(settings, world, key).batches(begun):
        rows.update(written)
        done += quotas[batch]
        progress(done, run.payments)
    return HistoryReport(run, world.batches, world.batches - begun, dict(rows), time.monotonic() - started)


def _begin(connection: psycopg.Connection, key: tuple[object, ...], world: World) -> int:
    """The record of the run and the cards, which all batches share."""
    cards = world.cards()
    with connection.transaction():
        connection.execute(
            "INSERT INTO payments.simulations (seed, payments, days, until, batches) VALUES (%s, %s, %s, %s, %s)",
            [*key, world.batches],
        )
        copy_in(connection, "card_fingerprints", cards)
    return cards.height


@dataclass(frozen=True)
class _Writers:
    """Two at a time, each with a connection: while one batch is made or waits, PostgreSQL takes in the other."""

    settings: Settings
    world: World
    key: tuple[object, ...]

    def batches(self, begun: int) -> Iterator[tuple[int, dict[str, int]]]:
        """Write the batches from `begun` on; yields each when it and all before it have committed."""
        with ExitStack() as held:
            connections = [held.enter_context(connect(self.settings, autocommit=True)) for _ in range(_WRITERS)]
            for connection in connections:
                _prepare(connection)
            pool = held.enter_context(ThreadPoolExecutor(_WRITERS, thread_name_prefix="history"))
            under_way: deque[Future[dict[str, int]]] = deque()
            before: Future[dict[str, int]] | None = None
            for batch in range(begun, self.world.batches):
                if len(under_way) == _WRITERS:
                    yield batch - _WRITERS, under_way.popleft().result()
                check_free_space(self.settings)
                before = pool.submit(self._write, connections[batch % _WRITERS], batch, before)
                under_way.append(before)
            for place, future in enumerate(under_way):
                yield self.world.batches - len(under_way) + place, future.result()

    def _write(
        self, connection: psycopg.Connection, batch: int, before: Future[dict[str, int]] | None
    ) -> dict[str, int]:
        books = self.world.books(batch)
        with connection.transaction():
            for table, frame in books.tables.items():
                copy_in(connection, table, frame)
            # Batches commit in their order, so that their number says which are there.
            if before is not None:
                before.result()
            counted = connection.execute(
                f"UPDATE payments.simulations SET batches_done = batches_done + 1, last_batch_at = now() "
                f"WHERE {_KEY} AND batches_done = %s",
                [*self.key, batch],
            ).rowcount
            if counted != 1:
                raise StripePlatformError(
                    f"batch {batch} of this simulation was written by somebody else meanwhile: start it again to go on"
                )
        return {table: frame.height for table, frame in books.tables.items()}


def _prepare(connection: psycopg.Connection) -> None:
    connection.execute("SET statement_timeout = '10min'; SET lock_timeout = '30s'")
    # A foreign key to a partitioned table is planned anew for every row else, at ten times the cost of looking it up.
    connection.execute("SET plan_cache_mode = force_generic_plan")
