"""The connector and the topics it writes, as assets."""

import hashlib
import json
from datetime import timedelta

import dagster as dg
from pydantic import Field

from stripe_platform.cdc.connector import connector_config, register
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.cut_store import save_cut
from stripe_platform.cdc.snapshot import SNAPSHOT_LIMIT, SnapshotProgress, take_snapshots
from stripe_platform.cdc.snapshot_report import described, sparingly
from stripe_platform.cdc.topics import CHANGES_ARE_KEPT, topic_for
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings

CONNECTOR_KEY = dg.AssetKey(["cdc", "connector"])
# A cut waits until the connector has come to it: after a large import that takes minutes.
CUT_LIMIT = timedelta(minutes=30)

# Debezium writes these, not Dagster: specs without a compute function keep the lineage honest.
topics = [
    dg.AssetSpec(
        key=["cdc", table.name],
        deps=[["oltp", table.name], CONNECTOR_KEY],
        description=f"Every committed change of `{table.qualified}`, in commit order; no personal columns.",
        group_name="cdc",
        kinds={"kafka", "debezium"},
        owners=["team:ingestion"],
        metadata={
            "topic": topic_for(table.name),
            "partitions": table.topic_partitions,
            "kept_days": CHANGES_ARE_KEPT.days,
        },
    )
    for table in CAPTURED_TABLES
]


@dg.asset(
    key=CONNECTOR_KEY,
    deps=[["oltp", table.name] for table in CAPTURED_TABLES],
    group_name="cdc",
    kinds={"kafka", "debezium"},
    owners=["team:ingestion"],
)
def connector(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """The topics exist as declared, and the Debezium connector runs with the configuration in debezium/."""
    state = register(settings)
    config = connector_config()
    return dg.MaterializeResult(
        metadata={
            "state": state.describe(),
            "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            "tables": len(CAPTURED_TABLES),
        }
    )


@dg.asset(
    key=["cdc", "cut"],
    deps=[topic.key for topic in topics],
    group_name="cdc",
    kinds={"kafka"},
    owners=["team:ingestion"],
)
def cut(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """One moment of the change stream: upper offsets of every topic, past all that was committed before it.

    The run that makes it drains up to it and builds the marts on it.
    """
    made = make_cut(settings, timeout=CUT_LIMIT)
    save_cut(settings, context.run_id, made)
    return dg.MaterializeResult(
        metadata={
            "cut": made.id,
            "made_at": dg.MetadataValue.timestamp(made.made_at),
            "offsets": dg.MetadataValue.json(made.offsets),
        }
    )


class SnapshotConfig(dg.Config):
    """Which tables to take; empty: those that need it."""

    tables: list[str] = Field(default_factory=list)
    again: bool = Field(default=False, description="Take them although they have been taken: after a loss.")


@dg.op(description="Have captured tables taken into their topics, while changes stream.")
def take_tables(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings], config: SnapshotConfig) -> None:
    """Each table taken is materialized as its topic, `cdc/<table>`; how far one is can be read in the log."""

    def tell(progress: SnapshotProgress) -> None:
        context.log.info(described(progress))
        if not progress.is_complete:
            metadata = {"rows_so_far": progress.rows, "estimated_rows": progress.estimated_rows}
            context.log_event(dg.AssetObservation(["cdc", progress.table], metadata=metadata))

    taken = take_snapshots(
        settings, config.tables or None, again=config.again, limit=SNAPSHOT_LIMIT, progress=sparingly(tell)
    )
    for each in taken:
        context.log_event(
            dg.AssetMaterialization(
                ["cdc", each.table],
                metadata={"rows": each.rows, "seconds": round(each.seconds, 1), "topic_id": each.topic_id},
            )
        )
