"""Whether the raw change log keeps up with its topics."""

from collections.abc import Iterator, Mapping

import dagster as dg

from stripe_platform.cdc.lag import LONGEST_UNREAD, MOST_UNREAD, Lag
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.assets import raw_key
from stripe_platform.raw.lag import raw_lag
from stripe_platform.settings import Settings

LAG_CHECK = "lag_is_below_its_limit"


def lag_results(lags: Mapping[str, Lag]) -> Iterator[dg.AssetCheckResult]:
    """One for each table of the given lags."""
    for table, behind in lags.items():
        yield dg.AssetCheckResult(
            asset_key=raw_key(table),
            check_name=LAG_CHECK,
            passed=behind.is_within_limits,
            metadata={
                "lag_messages": behind.messages,
                "lag_seconds": round(behind.seconds, 1),
                "limit_messages": MOST_UNREAD,
                "limit_seconds": LONGEST_UNREAD.total_seconds(),
            },
        )


@dg.multi_asset_check(
    name=f"raw_{LAG_CHECK}",
    specs=[
        dg.AssetCheckSpec(
            LAG_CHECK,
            asset=raw_key(table.name),
            description="Drains fail, do not come or do not keep up: marts grow old; after a week changes are lost.",
        )
        for table in CAPTURED_TABLES
    ],
)
def raw_lag_is_below_its_limit(settings: dg.ResourceParam[Settings]) -> Iterator[dg.AssetCheckResult]:
    """No table has more unread, or anything unread for longer, than several drains would leave."""
    yield from lag_results(raw_lag(settings))
