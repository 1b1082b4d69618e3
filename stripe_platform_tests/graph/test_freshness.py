"""Whatever a job or a sensor keeps up to date says by when it has to be."""

import dagster as dg


def test_every_log_and_model_and_every_upkeep_has_a_freshness_policy() -> None:
    from stripe_platform.definitions import defs

    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    kept_fresh = [key for key in specs if key.path[0] in ("raw", "staging", "marts")]
    assert {dg.AssetKey(["raw", "maintenance"]), dg.AssetKey(["raw", "charges"])} < set(kept_fresh)
    kept_fresh.append(dg.AssetKey(["oltp", "partitions"]))
    assert [key.to_user_string() for key in kept_fresh if specs[key].freshness_policy is None] == []
