"""The Debezium connector: its configuration, its registration and its state."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from stripe_platform.cdc.connect import ConnectClient, ConnectRefused
from stripe_platform.cdc.offsets import notices_written
from stripe_platform.cdc.slot import SLOT, Slot, slot_state
from stripe_platform.cdc.snapshot_notices import has_started_since
from stripe_platform.cdc.snapshot_registry import request_pending
from stripe_platform.cdc.topics import NOTIFICATION_TOPIC, TOPIC_PREFIX, ensure_topics
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.replication import CDC_ROLE, PUBLICATION, SIGNALS_SCHEMA, SIGNALS_TABLE
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.privacy.columns import column_exclude_list
from stripe_platform.settings import PROJECT_ROOT, Settings, without_secrets

CONNECTOR = "payments"
CONFIG_FILE = PROJECT_ROOT / "debezium" / f"{CONNECTOR}.json"

# Exceptions of other classes may quote the value that they could not convert.
QUOTABLE = ("org.postgresql.", "org.apache.kafka.connect.errors.")
QUOTABLE_CAUSES = tuple(f"Caused by: {package}" for package in QUOTABLE)
CLASS_NAME = re.compile(r"[\w.$]+")

NOT_REGISTERED = "NOT_REGISTERED"
RUNNING = "RUNNING"
FAILED = "FAILED"
# States out of which nobody but an operator brings the connector.
HALTED = frozenset({"PAUSED", "STOPPED"})
RESTARTS = 3
# A task is RUNNING before it has opened its slot, and may fail in doing so.
SETTLED_AFTER = timedelta(seconds=5)
# Debezium's words for a stored offset that PostgreSQL's log has no more, amid keys of rows; and ours.
GONE = "no longer available on the server"
POSITION_GONE = "the log from where it stopped is gone, the slot is missing or was made anew since"


class ConnectorRefused(StripePlatformError):
    """Connect found the configuration invalid, or PostgreSQL, which it tries, did not let it in."""


class PositionLost(StripePlatformError):
    """The connector can never go on from where it stopped, however often it is started."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"connector {CONNECTOR!r} cannot go on where it stopped: {reason}; changes are lost, PostgreSQL's rows are "
            "not: `stripe-platform recover` begins anew, reads all tables again and has the stores forget the rest"
        )


class ConnectorNotRunning(StripePlatformError):
    """The connector or its task did not come to run."""

    def __init__(self, state: "ConnectorState", slot: Slot | None, waited: timedelta) -> None:
        read_from = slot.describe() if slot else "there is no slot yet"
        super().__init__(
            f"{state.name!r} does not run after {waited.total_seconds():.0f} s: "
            f"{state.describe()} ({read_from}); mend the cause (Connect's log tells more) and register again: "
            "`stripe-platform up` or materialize cdc/connector"
        )


@dataclass(frozen=True)
class ConnectorState:
    """What Connect says of the connector and its tasks, in its own words; `failure` never holds a secret."""

    name: str
    connector: str
    tasks: tuple[str, ...] = ()
    failure: str | None = None

    @property
    def is_running(self) -> bool:
        """The connector and its task run."""
        return self.connector == RUNNING and bool(self.tasks) and set(self.tasks) == {RUNNING}

    @property
    def has_failed(self) -> bool:
        """The connector or a task gave up, and stays so until it is restarted."""
        return FAILED in (self.connector, *self.tasks)

    def describe(self) -> str:
        """One line for a person."""
        tasks = ", ".join(self.tasks) or "none"
        return f"connector {self.connector}, tasks {tasks}" + (f", {self.failure}" if self.failure else "")


def connector_config() -> dict[str, str]:
    """The file in debezium/ and the facts that other rooms own; secrets only as references."""
    config: dict[str, str] = json.loads(CONFIG_FILE.read_text())
    return config | {
        "name": CONNECTOR,
        "topic.prefix": TOPIC_PREFIX,
        "database.user": CDC_ROLE,
        "publication.name": PUBLICATION,
        "slot.name": SLOT,
        "signal.data.collection": f"{SIGNALS_SCHEMA}.{SIGNALS_TABLE}",
        "notification.sink.topic.name": NOTIFICATION_TOPIC,
        # Whole names: a pattern that fitted a leaf partition would capture its rows a second time.
        "table.include.list": ",".join(re.escape(table.qualified) for table in CAPTURED_TABLES),
        "column.exclude.list": column_exclude_list(),
    }


def connector_state(settings: Settings, *, patience: timedelta = timedelta(seconds=5)) -> ConnectorState:
    """The state now; `ConnectUnavailable` when Connect does not answer within `patience`."""
    return _state(settings, ConnectClient(settings.connect_url, patience))


def restart_failed(settings: Settings) -> None:
    """Have Connect start the connector and its task again if they have failed; harmless otherwise."""
    ConnectClient(settings.connect_url).restart_failed(CONNECTOR)


def register(settings: Settings, *, limit: timedelta = timedelta(seconds=90)) -> ConnectorState:
    """Create the topics, see to it that the connector runs with the current configuration, request snapshots.

    Idempotent: an equal configuration is not sent again, so that a running task goes on undisturbed. A failed
    task is restarted, a paused connector resumed. On its first start the task waits for all transactions that
    are open. `ConnectorNotRunning` after `limit`, with the task's error; `PositionLost` at once.

    The snapshots that tables need are requested when the connector streams by then, and not waited for: that
    is for the next cut or `take_snapshots`, which also request what is not yet requested.
    """
    ensure_topics(settings)
    client = ConnectClient(settings.connect_url)
    config = connector_config()
    changed = client.config(CONNECTOR) != config
    disturbance = _Disturbance(settings) if changed else None
    if changed:
        _put(settings, client, config)
    state = _wait_until_running(settings, client, limit, disturbance)
    # A task of before may still stream: it does not know the tables of the new configuration.
    if is_streaming(settings) and (disturbance is None or disturbance.has_come_through()):
        request_pending(settings)
    return state


def is_streaming(settings: Settings) -> bool:
    """Whether what is signalled now will be read: before the slot's starting point it never would."""
    slot = slot_state(settings)
    return bool(slot and slot.is_ready and slot.is_read)


def lost_position(settings: Settings, *, patience: timedelta = timedelta(seconds=5)) -> str | None:
    """Why the connector can never go on from where it stopped; None when it can, or has nothing stored."""
    client = ConnectClient(settings.connect_url, patience)
    # In this order: a connector that is just starting makes its slot before it stores anything.
    has_stored = any(stored["offset"].get("lsn") for stored in client.offsets(CONNECTOR))
    slot = slot_state(settings)
    if slot is not None and slot.is_lost:
        return slot.describe()
    if slot is None and has_stored:
        return f"there is no replication slot {SLOT!r} any more"
    return POSITION_GONE if _state(settings, client).failure == POSITION_GONE else None


def _put(settings: Settings, client: ConnectClient, config: Mapping[str, str]) -> None:
    try:
        client.put_config(CONNECTOR, config)
    except ConnectRefused as refusal:
        # Connect quotes what it found wrong, and it has resolved the references by then.
        raise ConnectorRefused(without_secrets(settings, str(refusal))) from None


def _wait_until_running(
    settings: Settings, client: ConnectClient, limit: timedelta, disturbance: "_Disturbance | None"
) -> ConnectorState:
    started = time.monotonic()
    restarts = 0
    while True:
        state = _state(settings, client)
        if state.is_running and (disturbance is None or disturbance.is_over()):
            return state
        if reason := lost_position(settings):
            raise PositionLost(reason)
        waited = timedelta(seconds=time.monotonic() - started)
        if waited > limit or (state.has_failed and restarts == RESTARTS):
            raise ConnectorNotRunning(state, slot_state(settings), waited)
        if state.has_failed or state.connector in HALTED:
            disturbance = _Disturbance(settings)
            restarts += state.has_failed
            _set_going(client, state)
        time.sleep(0.25 * 2**restarts)


def _set_going(client: ConnectClient, state: ConnectorState) -> None:
    if state.has_failed:
        client.restart_failed(CONNECTOR)
    else:
        client.resume(CONNECTOR)


class _Disturbance:
    """The task was made to start anew: until it tells so itself, RUNNING may be said of the one before."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._at = time.monotonic()
        self._notices = notices_written(settings)

    def has_come_through(self) -> bool:
        """The task has started since."""
        return has_started_since(self._settings, self._notices)

    def is_over(self) -> bool:
        """It streams, or it waits for something, as a first start does for open transactions."""
        waited = time.monotonic() - self._at > SETTLED_AFTER.total_seconds()
        return waited or (self.has_come_through() and is_streaming(self._settings))


def _state(settings: Settings, client: ConnectClient) -> ConnectorState:
    status = client.status(CONNECTOR)
    if status is None:
        return ConnectorState(CONNECTOR, NOT_REGISTERED)
    traces = [part["trace"] for part in (status["connector"], *status["tasks"]) if part.get("trace")]
    return ConnectorState(
        name=CONNECTOR,
        connector=status["connector"]["state"],
        tasks=tuple(task["state"] for task in status["tasks"]),
        failure=failure_of(settings, traces[0]) if traces else None,
    )


def failure_of(settings: Settings, trace: str) -> str:
    """What a Java stack trace comes to: its first line and its root cause, without secrets or row values.

    Of an exception that may quote a row, the first line is its class alone.
    """
    first, *others = trace.splitlines()
    if GONE in first:
        return POSITION_GONE
    if not first.startswith(QUOTABLE):
        name = CLASS_NAME.match(first)
        first = name[0] if name else "an error without a class"
    causes = [line for line in others if line.startswith(QUOTABLE_CAUSES)]
    return without_secrets(settings, " ".join([first, *causes[-1:]]))
