"""A cut: one vector of upper offsets that holds every change committed before it was asked for."""

import base64
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stripe_platform.cdc.broker import connection, named_errors
from stripe_platform.cdc.connector import (
    HALTED,
    NOT_REGISTERED,
    ConnectorState,
    PositionLost,
    connector_state,
    lost_position,
)
from stripe_platform.cdc.holes import known_holes
from stripe_platform.cdc.offsets import all_notices_visible, all_written_visible, message_end_offset, topic_ids
from stripe_platform.cdc.slot import SLOT, slot_state
from stripe_platform.cdc.snapshot import SnapshotNotTaken, take_snapshots
from stripe_platform.cdc.topics import MESSAGE_TOPIC
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings

CUT_PREFIX = "cut"
# How often the connector's state is looked at while the message is on its way.
LOOK_AT_STATE = timedelta(seconds=3)

Offsets = dict[str, dict[int, int]]


class CutNotMade(StripePlatformError):
    """The marker, or what was written before it, did not become visible."""

    def __init__(self, waited: float, reason: str) -> None:
        super().__init__(
            f"no cut after {waited:.0f} s: {reason}; a cut needs a running connector that keeps up: "
            "see `stripe-platform status`, register again with `stripe-platform up`, or wait and try again"
        )


@dataclass(frozen=True)
class Cut:
    """Upper offsets, exclusive, of every partition of every captured table's topic.

    Every change committed before `made_at`, by PostgreSQL's clock, lies below them; one committed while the
    cut was made may. `holes` is {table: the id of its last hole}: a store that has not made up for it may not be read
    up to this cut.
    """

    id: str
    made_at: datetime
    offsets: Offsets
    topic_ids: dict[str, str]
    holes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """A text that `from_json` reads back to an equal cut."""
        return json.dumps(asdict(self) | {"made_at": self.made_at.isoformat()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Cut":
        """The cut that `to_json` wrote."""
        fields = json.loads(text)
        return cls(
            id=fields["id"],
            made_at=datetime.fromisoformat(fields["made_at"]),
            offsets={
                table: {int(partition): offset for partition, offset in partitions.items()}
                for table, partitions in fields["offsets"].items()
            },
            topic_ids=fields["topic_ids"],
            # Cuts of earlier versions are kept, too.
            holes=fields.get("holes", {}),
        )


def make_cut(settings: Settings, *, timeout: timedelta = timedelta(seconds=60)) -> Cut:
    """Commit a marker, wait until it has come through the connector, and take every last stable offset.

    Tables that need a snapshot are taken first: below a cut are all rows of every captured table.

    The connector writes in commit order, so whatever was committed before the marker is written once the
    marker is visible; what is written by then is waited for until it is visible too. Cuts made at the same
    time do not disturb each other. `CutNotMade` after `timeout`, or at once when the connector has failed or
    is halted; `PositionLost` when it can never go on, `ChangesLost` while stores have to make up for lost changes.
    """
    cut_id = str(uuid4())
    wait = _Wait(settings, timeout)
    wait.until_connector_can_run()
    wait.until_slot_exists()
    wait.until_tables_are_taken()
    start = message_end_offset(settings)
    with connect(settings, autocommit=True) as postgres:
        made_at = _now(postgres)
        postgres.execute("SELECT pg_logical_emit_message(true, %s, %s)", (CUT_PREFIX, cut_id))
    wait.until_message_came(cut_id, start)
    tables = [table.name for table in CAPTURED_TABLES]
    offsets = wait.until_all_written_is_visible(tables)
    return Cut(cut_id, made_at, offsets, topic_ids(settings, tables), wait.until_holes_are_known())


def _now(postgres: psycopg.Connection) -> datetime:
    # Commit times, with which it is compared, come from the same clock.
    now: datetime
    ((now,),) = postgres.execute("SELECT clock_timestamp()").fetchall()
    return now.astimezone(UTC)


class _Wait:
    """The waiting of one cut, under one limit."""

    def __init__(self, settings: Settings, timeout: timedelta) -> None:
        self._settings = settings
        self._started = time.monotonic()
        self._timeout = timeout.total_seconds()
        self._state_looked_at = float("-inf")

    def until_connector_can_run(self) -> None:
        while not self._look_at_state().is_running:
            self._check_time("the connector does not run")
            time.sleep(0.5)

    def until_slot_exists(self) -> None:
        """A message committed before the slot's starting point would never be decoded."""
        while (slot := slot_state(self._settings)) is None or not slot.is_ready:
            self._check_time("the connector has no replication slot to read from yet")
            time.sleep(0.5)

    def until_tables_are_taken(self) -> None:
        """A table whose old rows are not in its topic would be short of them in every store built on the cut."""
        left = timedelta(seconds=max(0.0, self._timeout - self._waited))
        try:
            take_snapshots(self._settings, limit=left)
        except SnapshotNotTaken as failure:
            raise CutNotMade(self._waited, str(failure)) from failure

    def until_message_came(self, cut_id: str, start: int) -> None:
        consumer = Consumer(
            connection(self._settings)
            | {
                # Required by the client, never used: the place is assigned and nothing is committed.
                "group.id": "stripe-platform-cut",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
            }
        )
        try:
            consumer.assign([TopicPartition(MESSAGE_TOPIC, 0, start)])
            while not self._is_next(consumer, cut_id):
                if time.monotonic() - self._state_looked_at > LOOK_AT_STATE.total_seconds():
                    self._look_at_state()
                self._check_time("the marker has not come through the connector")
        finally:
            consumer.close()

    def until_all_written_is_visible(self, tables: Iterable[str]) -> Offsets:
        """The last stable offsets, once they have come to all that is written now.

        A Kafka transaction's end reaches its partitions one after the other: the marker may be visible while
        rows of the same transaction in another partition are not yet.
        """
        return all_written_visible(
            self._settings,
            tables,
            lambda: self._check_time("a Kafka transaction with changes from before the cut has not ended"),
        )

    def until_holes_are_known(self) -> dict[str, str]:
        """The holes below the offsets taken before: the connector tells of a start before it writes a change."""
        all_notices_visible(self._settings, lambda: self._check_time("the connector's notices are not visible"))
        return known_holes(self._settings)

    def _is_next(self, consumer: Consumer, cut_id: str) -> bool:
        with named_errors(self._settings, MESSAGE_TOPIC):
            record = consumer.poll(0.2)
            if record is None:
                return False
            if error := record.error():
                if error.code() == KafkaError._AUTO_OFFSET_RESET:
                    raise KafkaException(error)
                return False
        return cut_marker(record.value()) == cut_id

    def _look_at_state(self) -> ConnectorState:
        self._state_looked_at = time.monotonic()
        if reason := lost_position(self._settings):
            raise PositionLost(reason)
        state = connector_state(self._settings)
        if state.has_failed or state.connector in HALTED or state.connector == NOT_REGISTERED:
            raise CutNotMade(self._waited, state.describe())
        return state

    def _check_time(self, reason: str) -> None:
        if self._waited > self._timeout:
            state = connector_state(self._settings)
            slot = slot_state(self._settings)
            told = slot.describe() if slot else f"no replication slot {SLOT!r}"
            raise CutNotMade(self._waited, f"{reason} ({state.describe()}; {told})")

    @property
    def _waited(self) -> float:
        return time.monotonic() - self._started


def cut_marker(value: bytes | None) -> str | None:
    """The id in a logical message that marks a cut; None for every other message and for no value."""
    message = json.loads(value)["message"] if value else None
    if message is None or message["prefix"] != CUT_PREFIX:
        return None
    return base64.b64decode(message["content"]).decode()
