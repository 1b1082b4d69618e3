"""One worker of a live run: a connection, and transactions that are brought to their end though it breaks."""

import random
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import psycopg
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential_jitter,
)
from uuid_utils.compat import uuid7

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.connection import PostgresUnavailable, connect
from stripe_platform.oltp.simulator import live_people, live_renewals, live_steps
from stripe_platform.oltp.simulator.live_payments import LivePayment, Transaction
from stripe_platform.oltp.simulator.live_rows import Moment, Overtaken
from stripe_platform.oltp.simulator.roster import Roster
from stripe_platform.settings import Settings

T = TypeVar("T")

AWAY_LIMIT = timedelta(seconds=90)
"""How long PostgreSQL may be away, or refuse a transaction for now, before a live run gives up."""

_STEPS_PER_PAYMENT = 0.25
# (kind, how often among the steps, what finds it, what does it).
_STEPS: tuple[tuple[str, float, live_steps.Find, live_steps.Act], ...] = (
    ("capture", 0.18, live_steps.find_to_capture, live_steps.capture),
    ("refund", 0.18, live_steps.find_settled, live_steps.refund),
    ("dispute", 0.04, live_steps.find_settled, live_steps.dispute),
    ("dispute_closed", 0.04, live_steps.find_open_dispute, live_steps.close_dispute),
    ("review_closed", 0.08, live_steps.find_open_review, live_steps.close_review),
    ("renewal", 0.12, live_renewals.find_renewal, live_renewals.renew),
    ("payout", 0.06, live_steps.find_merchant, live_steps.pay_out),
    ("payout_arrived", 0.06, live_steps.find_arriving, live_steps.arrive),
    ("customer_changed", 0.12, live_people.find_customer, live_people.change_customer),
    ("customer_left", 0.02, live_people.find_leaver, live_people.leave),
    ("customer_moved", 0.06, live_people.find_customer, live_people.move),
    ("merchant_changed", 0.04, live_steps.find_merchant, live_people.change_merchant),
)
_WEIGHTS = [share for _, share, *_ in _STEPS]
# The connection is gone, or the transaction was chosen to give way to another.
_PASSING = (psycopg.OperationalError, psycopg.InterfaceError, PostgresUnavailable)


class LiveStopped(StripePlatformError):
    """PostgreSQL refused a transaction of a live run; what is committed stays."""

    def __init__(self, kind: str, error: psycopg.Error) -> None:
        # The primary message alone: the detail may hold row values.
        reason = error.diag.message_primary or error.__class__.__name__
        super().__init__(
            f"the live run stopped: PostgreSQL refused a transaction ({kind}: {reason}); "
            "what is committed stays, a new run goes on from there"
        )


class _BackendStays(psycopg.OperationalError):
    """The server has not yet ended the transaction of a lost connection."""


class Worker:
    """Makes payments and steps on one connection, which it makes anew when it breaks.

    `count` is called with `retried`, `resolved`, `reconnected` or `unresolved`, `done` with the kind of each
    transaction that has committed.
    """

    def __init__(
        self,
        settings: Settings,
        roster: Roster,
        stop: threading.Event,
        count: Callable[[str], None],
        done: Callable[[str], None],
    ) -> None:
        self._settings, self._roster, self._stop, self._count, self._done = settings, roster, stop, count, done
        self._connection: psycopg.Connection | None = None
        self._name = ""
        self._in_doubt: str | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def payment(self, chance: random.Random) -> None:
        """One payment with all its tries and, now and then, a step that is due elsewhere."""
        for transaction in LivePayment(*self._roster.someone(chance), chance).transactions():
            self._write(transaction)
        if chance.random() < _STEPS_PER_PAYMENT:
            kind, _, find, act = chance.choices(_STEPS, _WEIGHTS)[0]
            self._step(kind, find, act, chance)

    def _write(self, transaction: Transaction) -> None:
        self._bring_to_its_end(transaction.kind, transaction.write, transaction.is_there)

    def _step(self, kind: str, find: live_steps.Find, act: live_steps.Act, chance: random.Random) -> None:
        found = self._persist(kind, lambda: find(self._connected(), chance, self._roster))
        if found is None:
            return
        moment, decided = Moment(), chance.getrandbits(64)

        def write(connection: psycopg.Connection) -> None:
            with connection.transaction():
                act(connection, random.Random(decided), moment, found)  # noqa: S311 - it guards nothing

        self._bring_to_its_end(kind, write, moment.is_there)

    def _bring_to_its_end(
        self,
        kind: str,
        write: Callable[[psycopg.Connection], None],
        is_there: Callable[[psycopg.Connection], bool],
    ) -> None:
        def attempt() -> bool:
            connection = self._connected()
            if self._in_doubt is not None:
                self._until_it_has_ended(connection, self._in_doubt)
                self._in_doubt = None
                if is_there(connection):
                    self._count("resolved")
                    return True
            try:
                write(connection)
            except Overtaken:
                return False
            except _PASSING:
                if connection.closed:
                    self._in_doubt = self._name
                raise
            return True

        if self._persist(kind, attempt):
            self._done(kind)

    def _until_it_has_ended(self, connection: psycopg.Connection, name: str) -> None:
        """A lost connection's backend may still be about to commit: only then does looking tell anything."""
        query = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %s)"
        if connection.execute(query, [name]).fetchone() == (True,):
            raise _BackendStays

    def _persist(self, kind: str, act: Callable[[], T]) -> T | None:
        """Do it, again while what hinders it passes; None when the run was stopped meanwhile."""
        attempts = Retrying(
            retry=retry_if_exception_type(_PASSING),
            stop=stop_any(stop_after_delay(AWAY_LIMIT), stop_when_event_set(self._stop)),
            wait=wait_exponential_jitter(multiplier=0.05, max=2, jitter=0.1),
            sleep=sleep_using_event(self._stop),
            before_sleep=self._begun_again,
            reraise=True,
        )
        try:
            return attempts(act)
        except _PASSING as error:
            if self._stop.is_set():
                self._count("unresolved")
                self._in_doubt = None
                return None
            if isinstance(error, psycopg.Error):
                raise LiveStopped(kind, error) from error
            raise
        except psycopg.Error as error:
            raise LiveStopped(kind, error) from error

    def _begun_again(self, state: RetryCallState) -> None:
        self._count("retried")

    def _connected(self) -> psycopg.Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        again = self._connection is not None
        connection = connect(self._settings, autocommit=True)
        # The name tells, after it is lost, whether the server still works for this connection.
        name = f"live-{uuid7()}"
        connection.execute(
            "SELECT set_config('application_name', %s, false), set_config('statement_timeout', '30s', false), "
            "set_config('lock_timeout', '10s', false)",
            [name],
        )
        self._connection, self._name = connection, name
        if again:
            self._count("reconnected")
        return connection
