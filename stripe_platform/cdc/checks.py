"""Whether changes can flow: the connector's state and the topics' partitions."""

import dagster as dg

from stripe_platform.cdc.assets import CONNECTOR_KEY
from stripe_platform.cdc.connector import connector_state, lost_position
from stripe_platform.cdc.holes import holed, known_holes
from stripe_platform.cdc.slot import slot_state
from stripe_platform.cdc.snapshot import pending_snapshots
from stripe_platform.cdc.topics import differing_partitions
from stripe_platform.settings import Settings


@dg.asset_check(asset=CONNECTOR_KEY)
def connector_and_task_are_running(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A connector that stands still lets PostgreSQL keep its log until the disk is full."""
    state = connector_state(settings)
    return dg.AssetCheckResult(passed=state.is_running, metadata={"state": state.describe()})


@dg.asset_check(asset=CONNECTOR_KEY)
def connector_reads_the_log(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Connect calls a task RUNNING that tries in vain to reach PostgreSQL; the slot knows better."""
    slot = slot_state(settings)
    metadata: dict[str, str | int] = {
        "slot": slot.describe() if slot else "there is no slot",
        "kept_bytes": slot.kept_bytes if slot else 0,
    }
    if reason := lost_position(settings):
        metadata |= {"lost": reason, "remedy": "stripe-platform recover"}
    return dg.AssetCheckResult(passed=slot is not None and slot.is_read and not reason, metadata=metadata)


@dg.asset_check(asset=CONNECTOR_KEY)
def topics_have_the_declared_partitions(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A partition more sends a key's later changes elsewhere, and their order is lost."""
    differing = differing_partitions(settings)
    return dg.AssetCheckResult(
        passed=not differing,
        metadata={
            "differing_topics": len(differing),
            "found_and_declared": {topic: list(counts) for topic, counts in differing.items()},
        },
    )


@dg.asset_check(asset=CONNECTOR_KEY)
def every_table_has_been_snapshotted(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Until a table is taken into its topic, the rows from before its first change are nowhere downstream.

    A table that lost changes before they came to Kafka has to be taken again, and stores have to forget first.
    """
    pending = pending_snapshots(settings)
    lost = holed(pending, known_holes(settings) if pending else {})
    remedy = "stripe-platform snapshot, or materialize cdc/cut, which takes them first"
    return dg.AssetCheckResult(
        passed=not pending,
        metadata={
            "pending": list(pending),
            "lost_changes": list(lost),
            "remedy": "stripe-platform recover" if lost else remedy,
        },
    )
