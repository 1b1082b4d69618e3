"""Whatever a job or a sensor keeps up to date says by when it has to be."""

from datetime import timedelta

import dagster as dg
import pytest

# Written by the payments company at its own pace, or made anew only when a definition changes or a build asks for it.
AT_NO_TIME = ("oltp", "cdc")
# An upkeep runs once a night: one night may fail, two may not.
NIGHTLY = {dg.AssetKey(key) for key in (["oltp", "partitions"], ["raw", "maintenance"], ["dagster", "history"])}
# None may come for a year, and that is well.
WHEN_IT_HAPPENS = {dg.AssetKey(["features", name]) for name in ("dead_letters", "fraud_decisions")}
WITHIN_A_DAY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1), warn_window=timedelta(hours=12))
WITHIN_TWO_NIGHTS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26))


@pytest.fixture(scope="module")
def policies() -> dict[dg.AssetKey, dg.FreshnessPolicy | None]:
    from stripe_platform.definitions import defs

    return {spec.key: spec.freshness_policy for spec in defs.resolve_all_asset_specs()}


def test_every_asset_that_has_to_be_fresh_says_by_when_and_no_other_does(
    policies: dict[dg.AssetKey, dg.FreshnessPolicy | None],
) -> None:
    wanted = {key: WITHIN_A_DAY for key in policies.keys() - WHEN_IT_HAPPENS if key.path[0] not in AT_NO_TIME}
    wanted |= dict.fromkeys(NIGHTLY, WITHIN_TWO_NIGHTS)
    assert {dg.AssetKey(["raw", "charges"]), dg.AssetKey(["warehouse", "published_marts"])} < wanted.keys()
    assert {key: policy for key, policy in policies.items() if policy} == wanted
