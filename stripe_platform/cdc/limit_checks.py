"""Limits of the change stream: what PostgreSQL keeps for the slot, and transactions that nobody ends."""

from collections.abc import Iterator, Mapping

import dagster as dg

from stripe_platform.cdc.assets import CONNECTOR_KEY
from stripe_platform.cdc.observation import (
    LONGEST_TRANSACTION,
    SLOT_WARNING,
    is_stuck,
    open_transactions,
    share_kept,
    topic_states,
)
from stripe_platform.cdc.slot import Slot, slot_state
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings

SLOT_CHECK = "slot_is_below_its_limit"
STABLE_CHECK = "last_stable_offset_moves"


def slot_result(slot: Slot | None) -> dg.AssetCheckResult:
    """A warning past `SLOT_WARNING`, an error once changes are gone or about to be; no slot keeps nothing."""
    is_losing = slot is not None and slot.wal_status in ("lost", "unreserved")
    share = share_kept(slot) if slot else 0.0
    return dg.AssetCheckResult(
        asset_key=CONNECTOR_KEY,
        check_name=SLOT_CHECK,
        passed=not is_losing and share <= SLOT_WARNING,
        severity=dg.AssetCheckSeverity.ERROR if is_losing else dg.AssetCheckSeverity.WARN,
        metadata={
            "slot": slot.describe() if slot else "there is no slot",
            "kept_bytes": slot.kept_bytes if slot else 0,
            "limit_bytes": slot.limit_bytes if slot else None,
            "warning_at": SLOT_WARNING,
        },
    )


def stable_results(open_seconds: Mapping[str, float]) -> Iterator[dg.AssetCheckResult]:
    """One for each table, given the ages of open transactions."""
    for table in CAPTURED_TABLES:
        seconds = open_seconds.get(table.name, 0.0)
        yield dg.AssetCheckResult(
            asset_key=["cdc", table.name],
            check_name=STABLE_CHECK,
            passed=not is_stuck(seconds),
            metadata={
                "open_for_seconds": round(seconds, 1),
                "limit_seconds": LONGEST_TRANSACTION.total_seconds(),
                "remedy": "kafka-transactions.sh find-hanging, then abort: readers get no further until then",
            },
        )


@dg.asset_check(asset=CONNECTOR_KEY, name=SLOT_CHECK)
def slot_is_below_its_limit(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Past its limit PostgreSQL drops the log that the connector has not read: those changes are gone."""
    return slot_result(slot_state(settings))


@dg.multi_asset_check(
    name=STABLE_CHECK,
    specs=[
        dg.AssetCheckSpec(
            STABLE_CHECK,
            asset=["cdc", table.name],
            description="A transaction that nobody ends keeps every reader before it, whatever is written after it.",
        )
        for table in CAPTURED_TABLES
    ],
)
def last_stable_offset_moves(settings: dg.ResourceParam[Settings]) -> Iterator[dg.AssetCheckResult]:
    """No Kafka transaction is open for longer than Kafka itself would let it."""
    states = topic_states(settings, [table.name for table in CAPTURED_TABLES])
    yield from stable_results(open_transactions(settings, states))
