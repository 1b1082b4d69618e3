"""The monthly partitions as an asset."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg

from stripe_platform.oltp.archive import KEPT_MONTHS, Detached, PartitionsNotDetached, detach_expired
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.partitions import ensure_partitions, months_to_come
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings

PARTITIONS_KEY = dg.AssetKey(["oltp", "partitions"])
# Once a night: without it for two nights the schedule does not run or fails.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))


@dg.asset(
    key=PARTITIONS_KEY,
    deps=[["oltp", table.name] for table in CAPTURED_TABLES if table.monthly],
    group_name="oltp",
    kinds={"postgres"},
    owners=["team:payments"],
    freshness_policy=FRESH,
)
def partitions(settings: dg.ResourceParam[Settings]) -> Iterable[dg.MaterializeResult[None]]:
    """Monthly tables have partitions for the months to come; those past their retention lie in schema archive."""
    now = datetime.now(UTC)
    with connect(settings, autocommit=True) as connection:
        made = ensure_partitions(connection, months_to_come(now))
        try:
            detached = detach_expired(connection, now)
        except PartitionsNotDetached as kept:
            yield _result(made, kept.detached)
            raise
        yield _result(made, detached)


def _result(made: tuple[str, ...], detached: tuple[Detached, ...]) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "made": list(made),
            "detached": {partition.name: partition.rows for partition in detached},
            "rows_detached": sum(partition.rows for partition in detached),
            "kept_months": KEPT_MONTHS,
        }
    )
