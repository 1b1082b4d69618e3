"""What the jobs that build the warehouse run, as the code server resolves them."""

import dagster as dg
import pytest

PUBLISHED = dg.AssetKey(["warehouse", "published_marts"])


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    from stripe_platform.definitions import defs

    return defs


def selected(defs: dg.Definitions, job: str) -> set[dg.AssetKey]:
    return set(defs.resolve_job_def(job).asset_layer.executable_asset_keys)


def test_rebuild_marts_builds_and_publishes_every_model_and_reads_no_stream(defs: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    models = {key for key, spec in specs.items() if "dbt" in spec.kinds}
    assert {key.path[0] for key in models} == {"staging", "intermediate", "marts"}
    assert selected(defs, "rebuild_marts") == models | {PUBLISHED}


def test_oltp_to_warehouse_does_the_same_on_a_cut_of_its_own_that_it_drains_to(defs: dg.Definitions) -> None:
    before = {key.path[0] for key in selected(defs, "oltp_to_warehouse") - selected(defs, "rebuild_marts")}
    assert before == {"cdc", "raw"}
    assert dg.AssetKey(["cdc", "cut"]) in selected(defs, "oltp_to_warehouse")


@pytest.mark.parametrize("job", ["rebuild_marts", "oltp_to_warehouse"])
def test_a_job_that_publishes_runs_all_models_with_every_test_of_theirs(defs: dg.Definitions, job: str) -> None:
    from stripe_platform.warehouse.assets import warehouse_models

    in_job = defs.resolve_job_def(job).asset_layer.get(dg.AssetKey(["marts", "fact_charges"])).assets_def
    # A subset is not marked as tested, and what is not is not published.
    assert not in_job.is_subset
    assert in_job.check_keys == warehouse_models.check_keys
    assert len(in_job.check_keys) > 300


def test_rebuild_marts_takes_a_month_by_config_or_none(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("rebuild_marts")
    asked = dg.validate_run_config(job, {"ops": {"warehouse_models": {"config": {"month": "2026-01"}}}})
    assert asked["ops"]["warehouse_models"]["config"] == {"month": "2026-01", "full_refresh": False}
    unasked = dg.validate_run_config(job)
    assert unasked["ops"]["warehouse_models"]["config"] == {"month": None, "full_refresh": False}
