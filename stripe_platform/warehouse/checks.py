"""Is the published warehouse what its cut says?"""

import dagster as dg

from stripe_platform.settings import Settings
from stripe_platform.warehouse.assets import PUBLISHED_KEY
from stripe_platform.warehouse.position import partitions_off_cut


@dg.asset_check(asset=PUBLISHED_KEY)
def published_marts_match_their_cut(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Staging has taken in the change log up to the published cut and not one offset beyond: else marts are torn."""
    off = partitions_off_cut(settings)
    return dg.AssetCheckResult(
        passed=not off,
        metadata={
            "partitions_off_cut": len(off),
            "tables": ", ".join(sorted({place.table for place in off})) or "none",
        },
    )
