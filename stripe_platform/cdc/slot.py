"""The replication slot: how far the connector has read PostgreSQL's log, and what is kept for it."""

import time
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.connection import connect
from stripe_platform.settings import Settings

SLOT = "stripe_platform"

_STATE = """
SELECT
    confirmed_flush_lsn IS NOT NULL,
    active,
    wal_status,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint,
    (
        SELECT CASE WHEN setting <> '-1' THEN pg_size_bytes(setting || unit) END
        FROM pg_settings WHERE name = 'max_slot_wal_keep_size'
    )
FROM pg_replication_slots WHERE slot_name = %s
"""


class SlotInUse(StripePlatformError):
    """Somebody reads the slot that shall be dropped."""

    def __init__(self, waited: timedelta) -> None:
        super().__init__(
            f"replication slot {SLOT!r} is still read after {waited.total_seconds():.0f} s, though the connector is "
            "stopped: end its reader (`SELECT active_pid FROM pg_replication_slots`) and try again"
        )


@dataclass(frozen=True)
class Slot:
    """The slot as PostgreSQL sees it.

    `is_ready`: decoding can begin (before, it waits for open transactions to end). `is_read`: the connector
    streams from it. `wal_status` is PostgreSQL's word;
    `lost` means that changes are gone. `kept_bytes` of log are held back for the slot; `unconfirmed_bytes` of
    it the connector has not yet taken. At more than `limit_bytes` PostgreSQL gives the slot up; None: never.
    """

    is_ready: bool
    is_read: bool
    wal_status: str | None
    kept_bytes: int
    unconfirmed_bytes: int
    limit_bytes: int | None = None

    @property
    def is_lost(self) -> bool:
        """Nothing can be read from it any more, ever."""
        return self.wal_status == "lost"

    def describe(self) -> str:
        """One line for a person."""
        if self.is_lost:
            return f"slot {SLOT!r} is lost: PostgreSQL has removed log that was not read yet"
        if not self.is_ready:
            return f"slot {SLOT!r} waits for transactions that are open"
        read = "is read" if self.is_read else "is not read"
        return f"slot {SLOT!r} {read}, {self.unconfirmed_bytes:,} bytes behind, log {self.wal_status}"


def drop_slot(settings: Settings, *, limit: timedelta = timedelta(seconds=30)) -> None:
    """Drop the slot if there is one; waits for its reader to be gone, and raises `SlotInUse` after `limit`."""
    deadline = time.monotonic() + limit.total_seconds()
    with connect(settings, autocommit=True) as postgres:
        while time.monotonic() < deadline:
            try:
                postgres.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (SLOT,)
                )
            except psycopg.errors.ObjectInUse:
                time.sleep(0.2)
            except psycopg.errors.UndefinedObject:
                return
            else:
                return
    raise SlotInUse(limit)


def slot_state(settings: Settings) -> Slot | None:
    """The slot now; None when there is none."""
    with connect(settings, autocommit=True) as postgres:
        row = postgres.execute(_STATE, (SLOT,)).fetchone()
    return Slot(*row) if row else None
