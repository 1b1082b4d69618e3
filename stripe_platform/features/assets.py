"""MongoDB's collections as assets: one drain of the topics keeps all of them, in the same transactions."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, cast

import dagster as dg

from stripe_platform.cdc.drain_runs import tag_stopped
from stripe_platform.cdc.report import TablesStopped
from stripe_platform.features import charges, dead_letters, parents
from stripe_platform.features.collections import COLLECTIONS, DEAD_LETTERS, Collection
from stripe_platform.features.drain import RUN_LIMIT, drain
from stripe_platform.features.following import Follow
from stripe_platform.features.intake import Point, nowhere
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
# A run that follows ends by itself well before the time at which its job would be taken for dead.
FOLLOWED = timedelta(seconds=100)


class DocumentsConfig(DrainConfig):
    """How far to drain at least, and whether to stay: until no change has come for `quiet_seconds`, or 100 s."""

    quiet_seconds: float | None = None


_OF_CHARGES = (*KEYS, *charges.TABLES)
_TILES = frozenset(entity.collection for entity in Entity)
# Of a document of charges everything is in these tables; the features are made of the charges' documents alone.
TABLES_OF: Mapping[str, tuple[str, ...]] = {
    charges.COLLECTION: _OF_CHARGES,
    parents.COLLECTION: tuple(KEYS),
    "customers": ("customers",),
    "merchants": ("merchants",),
    "events": ("events",),
    **dict.fromkeys(sorted(_TILES), _OF_CHARGES),
    dead_letters.COLLECTION: TABLES,
}
_ALL = (*COLLECTIONS, DEAD_LETTERS)
DRAINED = tuple(collection for collection in _ALL if collection.name in TABLES_OF)
_OWNERS = dict.fromkeys((*_TILES, "fraud_decisions"), "team:fraud")


def collection_key(name: str) -> dg.AssetKey:
    """The key of a collection's asset."""
    return dg.AssetKey(["features", name])


def _deps(collection: str) -> list[dg.AssetKey]:
    if collection in _TILES:
        return [collection_key(charges.COLLECTION)]
    return [dg.AssetKey(["cdc", table]) for table in TABLES_OF[collection]]


def _spec(collection: Collection, **more: Any) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=collection_key(collection.name),
        description=collection.description,
        group_name="features",
        kinds={"mongodb"},
        owners=[_OWNERS.get(collection.name, "team:support")],
        **more,
    )


# Written by whoever scores a payment; here are its validator, its index and its expiry.
fraud_decisions = _spec(next(collection for collection in COLLECTIONS if collection.name == "fraud_decisions"))


@dg.multi_asset(
    name=DRAIN_OP,
    # No pool: of two writers one gives way, and a killed run would keep its slot.
    specs=[
        _spec(
            collection,
            deps=_deps(collection.name),
            # No letter is as it should be.
            freshness_policy=None if collection is DEAD_LETTERS else FRESH,
        )
        for collection in DRAINED
    ],
)
def collections(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], config: DocumentsConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Apply what the topics hold to the documents and features, with the offsets after it.

    Bounds name the tables that are drained; without any, all are.
    """
    bounds = config.by_partition()
    follow, limit = None, RUN_LIMIT
    if config.quiet_seconds is not None:
        follow, limit = Follow(quiet=timedelta(seconds=config.quiet_seconds)), FOLLOWED
    with open_store(settings) as store:
        try:
            report = drain(settings, bounds or TABLES, store=store, bounds=bounds or None, limit=limit, follow=follow)
        except TablesStopped as stopped:
            tag_stopped(context, stopped)
            yield from results(store.documents, cast("DocumentsReport", stopped.report))
            raise
        yield from results(store.documents, report)


def results(
    documents: Documents, report: DocumentsReport, at: Callable[[Point], None] = nowhere
) -> Iterator[dg.MaterializeResult[None]]:
    """One for each collection, with what the drain did to it."""
    written = {**report.written, dead_letters.COLLECTION: report.dead_letters}
    at("reporting")
    for collection in DRAINED:
        of_collection = TABLES_OF[collection.name]
        tables = {table: report.tables[table] for table in of_collection if table in report.tables}
        # Of a table that stopped before it was read nobody knows here how much is unread.
        lag = sum(drained.lag for drained in tables.values()) if len(tables) == len(of_collection) else None
        yield dg.MaterializeResult(
            asset_key=collection_key(collection.name),
            metadata={
                **({"held": str(report.held)} if report.held else {}),
                **state_of(documents, collection.name, lag=lag),
                "documents_written": written.get(collection.name, 0),
                "offsets_to": {
                    table: {str(partition): offset for partition, offset in drained.end.items()}
                    for table, drained in tables.items()
                },
                "drain_seconds": round(report.seconds, 3),
            },
        )
    at("reported")


def state_of(documents: Documents, collection: str, *, lag: int | None) -> dict[str, Any]:
    """What an asset tells of its collection, whoever wrote it; `lag` is the messages unread in its own topics.

    None: it is not known, and not told.
    """
    state: dict[str, Any] = {
        "dagster/row_count": documents[collection].estimated_document_count(),
        "indexes": sorted(documents[collection].index_information()),
    }
    if lag is not None:
        state["lag"] = lag
    if collection == dead_letters.COLLECTION:
        state["untriaged"] = dead_letters.untriaged(documents)
    return state
