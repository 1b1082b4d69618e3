"""Whether MongoDB's documents and features are what the topics say, and how far they are."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from stripe_platform.features import dead_letters
from stripe_platform.features.assets import collection_key
from stripe_platform.features.audit import audit
from stripe_platform.features.charges import COLLECTION
from stripe_platform.features.connection import connect
from stripe_platform.features.lag import mongodb_lag
from stripe_platform.features.offsets import stored_offsets
from stripe_platform.features.payments import Entity
from stripe_platform.features.raw_source import open_holes
from stripe_platform.features.sink import TABLES
from stripe_platform.settings import Settings

CHARGES_KEY = collection_key(COLLECTION)
# Topics are read one beside the other: a parent comes within seconds of its child, or something is wrong.
LONGEST_INCOMPLETE = timedelta(minutes=10)


@dg.asset_check(asset=CHARGES_KEY)
def documents_keep_up(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """No table has more unread, or anything unread for longer, than several drains would leave."""
    with connect(settings) as documents:
        lags = mongodb_lag(settings, documents, TABLES)
    behind = {table: lag for table, lag in lags.items() if not lag.is_within_limits}
    without_topic = sorted(set(TABLES) - lags.keys())
    return dg.AssetCheckResult(
        passed=not behind and not without_topic,
        metadata={
            "lag_messages": sum(lag.messages for lag in lags.values()),
            "lag_seconds": round(max((lag.seconds for lag in lags.values()), default=0.0), 1),
            "tables_behind": sorted(behind),
            "tables_without_topic": without_topic,
        },
    )


@dg.asset_check(asset=collection_key(dead_letters.COLLECTION))
def dead_letters_are_triaged(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """What could not become a document is missing from what support and the fraud model see."""
    with connect(settings) as documents:
        waiting = dead_letters.untriaged(documents)
    return dg.AssetCheckResult(
        passed=waiting == 0,
        metadata={"untriaged": waiting, "remedy": "stripe-platform dead-letters list, then replay or triage"},
    )


@dg.asset_check(asset=CHARGES_KEY)
def holes_are_made_up_for(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Rows that were deleted by changes which never came to Kafka live on in the documents."""
    with connect(settings) as documents:
        holes = open_holes(settings, stored_offsets(documents), TABLES)
    return dg.AssetCheckResult(
        passed=not holes,
        metadata={
            "tables": sorted(holes),
            "remedy": f"stripe-platform recover, then stripe-platform rebuild {' '.join(sorted(holes))}",
        },
    )


@dg.asset_check(asset=CHARGES_KEY)
def charges_become_complete(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A charge whose intent, card or exchange rate does not come is kept from every reader."""
    before = datetime.now(UTC) - LONGEST_INCOMPLETE
    with connect(settings) as documents:
        old = documents[COLLECTION].count_documents({"incomplete_since": {"$lt": before}})
    return dg.AssetCheckResult(
        passed=old == 0,
        metadata={"incomplete": old, "for_longer_than_seconds": LONGEST_INCOMPLETE.total_seconds()},
    )


def _tiles_check(entity: Entity) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=collection_key(entity.collection), name="tiles_are_the_sum_of_their_charges")
    def tiles_are_the_sum_of_their_charges(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        """A sum that counts a payment twice, or not, gives every later decision a wrong feature."""
        with connect(settings) as documents:
            days = audit(documents, entity)
        return dg.AssetCheckResult(
            passed=days.differ == 0,
            metadata={
                "days_compared": days.compared,
                "days_that_differ": days.differ,
                "remedy": f"stripe-platform rebuild {entity.collection}",
            },
        )

    return tiles_are_the_sum_of_their_charges


tile_checks = [_tiles_check(entity) for entity in Entity]
