"""Is the published warehouse what its cut says?"""

import dagster as dg

from stripe_platform.settings import Settings
from stripe_platform.warehouse.assets import PUBLISHED_KEY
from stripe_platform.warehouse.engines import engine_of
from stripe_platform.warehouse.position import partitions_off_cut


@dg.asset_check(asset=PUBLISHED_KEY)
def published_marts_match_their_cut(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Staging has taken in the change log up to the published cut and not one offset beyond: else marts are torn.

    Where the marts alone are published, there is nothing to compare, and the result says so.
    """
    if not engine_of(settings).publishes_staging:
        return dg.AssetCheckResult(
            passed=True, description="Not compared: staging is not published here, and that of the build goes on."
        )
    off = partitions_off_cut(settings)
    return dg.AssetCheckResult(
        passed=not off,
        metadata={
            "partitions_off_cut": len(off),
            "tables": ", ".join(sorted({place.table for place in off})) or "none",
        },
    )
