"""The replication slot: how far the connector has read PostgreSQL's log, and what is kept for it."""

from dataclasses import dataclass

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

    def describe(self) -> str:
        """One line for a person."""
        if not self.is_ready:
            return f"slot {SLOT!r} waits for transactions that are open"
        read = "is read" if self.is_read else "is not read"
        return f"slot {SLOT!r} {read}, {self.unconfirmed_bytes:,} bytes behind, log {self.wal_status}"


def slot_state(settings: Settings) -> Slot | None:
    """The slot now; None when there is none."""
    with connect(settings, autocommit=True) as postgres:
        row = postgres.execute(_STATE, (SLOT,)).fetchone()
    return Slot(*row) if row else None
