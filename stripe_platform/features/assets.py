"""MongoDB's collections as assets: one drain of the topics keeps all of them, in the same transactions."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from stripe_platform.cdc.drain_runs import tag_stopped
from stripe_platform.cdc.report import TablesStopped
from stripe_platform.features import charges
from stripe_platform.features.collections import COLLECTIONS
from stripe_platform.features.drain import drain
from stripe_platform.features.parents import KEYS
from stripe_platform.features.payments import Entity
from stripe_platform.features.projection import Documents
from stripe_platform.features.report import DocumentsReport
from stripe_platform.features.sink import TABLES, open_store
from stripe_platform.raw.assets import DrainConfig
from stripe_platform.settings import Settings

# A quiet company has no payment for a day. How far the documents are behind is the lag sensor's to tell.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1), warn_window=timedelta(hours=12))
DRAIN_OP = "documents"

# Of a document of charges everything is in these tables; the features are made of the charges' documents alone.
_TABLES_OF = {
    charges.COLLECTION: (*KEYS, *charges.TABLES),
    "customers": ("customers",),
    "merchants": ("merchants",),
    "events": ("events",),
}
_TILES = frozenset(entity.collection for entity in Entity)
DRAINED = tuple(collection for collection in COLLECTIONS if collection.name in {*_TABLES_OF, *_TILES})


def collection_key(name: str) -> dg.AssetKey:
    """The key of a collection's asset."""
    return dg.AssetKey(["features", name])


def _deps(collection: str) -> list[dg.AssetKey]:
    if collection in _TILES:
        return [collection_key(charges.COLLECTION)]
    return [dg.AssetKey(["cdc", table]) for table in _TABLES_OF[collection]]


@dg.multi_asset(
    name=DRAIN_OP,
    # No pool: of two writers one gives way, and a killed run would keep its slot.
    specs=[
        dg.AssetSpec(
            key=collection_key(collection.name),
            deps=_deps(collection.name),
            description=collection.description,
            group_name="features",
            kinds={"mongodb"},
            owners=["team:fraud"] if collection.name in _TILES else ["team:support"],
            freshness_policy=FRESH,
        )
        for collection in DRAINED
    ],
)
def collections(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], config: DrainConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Apply what the topics hold to the documents and features, with the offsets after it.

    Bounds name the tables that are drained; without any, all are.
    """
    bounds = config.by_partition()
    with open_store(settings) as store:
        try:
            report = drain(settings, bounds or TABLES, store=store, bounds=bounds or None)
        except TablesStopped as stopped:
            tag_stopped(context, stopped)
            yield from results(store.documents, stopped.report)
            raise
        yield from results(store.documents, report)


def results(documents: Documents, report: Any) -> Iterator[dg.MaterializeResult[None]]:
    """One for each collection, with what the drain did to all of them."""
    told = _told(report)
    for collection in DRAINED:
        yield dg.MaterializeResult(
            asset_key=collection_key(collection.name),
            metadata={
                "dagster/row_count": documents[collection.name].estimated_document_count(),
                "indexes": sorted(_index_names(documents, collection.name)),
                **told,
            },
        )


def _index_names(documents: Documents, collection: str) -> Iterable[str]:
    return documents[collection].index_information()


def _told(report: DocumentsReport) -> dict[str, Any]:
    return {
        **({"held": str(report.held)} if report.held else {}),
        "changes_applied": report.applied,
        "changes_stale": report.stale,
        "dead_letters": report.dead_letters,
        "offsets_to": {
            table: {str(partition): offset for partition, offset in drained.end.items()}
            for table, drained in report.tables.items()
        },
        "lag": report.lag,
        "drain_seconds": round(report.seconds, 3),
    }
