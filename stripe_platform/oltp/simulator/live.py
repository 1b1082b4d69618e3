"""A payments company at work: real transactions at a rate, on whoever is in the database."""

import itertools
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.partitions import ensure_partitions, months_to_come
from stripe_platform.oltp.simulator.live_worker import Worker
from stripe_platform.oltp.simulator.roster import Roster
from stripe_platform.settings import Settings

WORKERS = 4
_SPACE_CHECKED_EVERY_S = 1.0


class NoSuchRate(StripePlatformError):
    """A live run needs a rate and a duration above zero."""

    def __init__(self) -> None:
        super().__init__("live payments come at a rate, and for a duration, of more than zero: change the arguments")


@dataclass(frozen=True)
class LiveReport:
    """What a live run committed: `payments` intents with all their tries, `committed` transactions by kind.

    `resolved` transactions had committed although their answer was lost; they are counted in `committed`, once.
    `retried` counts the times a transaction was begun again, `reconnected` the connections made anew. `unresolved`
    transactions are those that nobody knows of: the run was told to stop while PostgreSQL was away.
    """

    payments: int
    committed: dict[str, int] = field(default_factory=dict)
    retried: int = 0
    resolved: int = 0
    reconnected: int = 0
    unresolved: int = 0
    seconds: float = 0.0

    @property
    def transactions(self) -> int:
        """All transactions committed."""
        return sum(self.committed.values())

    @property
    def rate(self) -> float:
        """Payments per second that were reached."""
        return self.payments / self.seconds if self.seconds else 0.0


def run_live(
    settings: Settings, rate: float, duration: timedelta, seed: int, stop: threading.Event | None = None
) -> LiveReport:
    """Make `rate` payments per second, and the steps that follow payments, for `duration` or until `stop` is set.

    Payment n is due n / `rate` seconds after the start, however late the one before it was. A transaction that has
    begun is brought to its end: when PostgreSQL goes away it is tried again until it is back, for `AWAY_LIMIT` at
    most, and one whose answer was lost is looked up by its key. Raises `NoSuchRate`, `NobodyToPay`, `LiveStopped`,
    `PostgresUnavailable`, or that the disk is full.
    """
    if rate <= 0 or duration <= timedelta():
        raise NoSuchRate
    with connect(settings, autocommit=True) as connection:
        ensure_partitions(connection, months_to_come(datetime.now(UTC)))
        roster = Roster.read(connection)
    live = _Live(settings, rate, duration, seed, roster, stop=stop or threading.Event())
    threads = [threading.Thread(target=live.work, name=f"live-{number}") for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        live.watch_space(threads)
    finally:
        live.ended.set()
        for thread in threads:
            thread.join()
    return live.report()


class _Live:
    """What the workers of one run share."""

    def __init__(
        self, settings: Settings, rate: float, duration: timedelta, seed: int, roster: Roster, *, stop: threading.Event
    ) -> None:
        self.settings, self.rate, self.seed, self.roster, self.stop = settings, rate, seed, roster, stop
        self.due_payments = int(rate * duration.total_seconds())
        self.started = time.monotonic()
        self.ended = threading.Event()
        self.numbers = itertools.count()
        self.lock = threading.Lock()
        self.committed: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.error: BaseException | None = None

    def watch_space(self, threads: list[threading.Thread]) -> None:
        """Return when the workers have ended or are to end; raises when the disk is nearly full."""
        while any(thread.is_alive() for thread in threads) and not self.stopping():
            check_free_space(self.settings)
            self.stop.wait(min(_SPACE_CHECKED_EVERY_S, 0.2))

    def stopping(self) -> bool:
        """Whether no new payment is to be begun."""
        return self.stop.is_set() or self.ended.is_set()

    def work(self) -> None:
        """Take the next payment, wait until it is due, make it; again until the run is over."""
        worker = Worker(self.settings, self.roster, self.stop, self.count, self.done)
        try:
            while not self.stopping() and (number := next(self.numbers)) < self.due_payments:
                if self._wait(self.started + number / self.rate):
                    worker.payment(random.Random(f"{self.seed}:{number}"))  # noqa: S311 - it guards nothing
        except BaseException as error:
            self.error = self.error or error
            self.ended.set()
        finally:
            worker.close()

    def _wait(self, until: float) -> bool:
        while (left := until - time.monotonic()) > 0:
            if self.stop.wait(min(left, 0.2)) or self.ended.is_set():
                return False
        return True

    def count(self, name: str) -> None:
        """One more retry, resolution or reconnection."""
        with self.lock:
            self.counts[name] += 1

    def done(self, kind: str) -> None:
        """One more transaction committed."""
        with self.lock:
            self.committed[kind] += 1

    def report(self) -> LiveReport:
        """What was done; raises what ended a worker."""
        if self.error is not None:
            raise self.error
        return LiveReport(
            payments=self.committed["payment_intent"],
            committed=dict(self.committed),
            seconds=time.monotonic() - self.started,
            **{name: self.counts[name] for name in ("retried", "resolved", "reconnected", "unresolved")},
        )
