"""The graph as the code server loads it."""

import tomllib

import dagster as dg
import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    from stripe_platform.definitions import defs

    return defs


@pytest.fixture(scope="module")
def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_graph_is_what_the_snapshot_says(
    defs: dg.Definitions, specs: dict[str, dg.AssetSpec], snapshot: SnapshotAssertion
) -> None:
    graph = defs.resolve_asset_graph()
    assert {
        "assets": {
            key: {
                "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
                "group": spec.group_name,
                "kinds": sorted(spec.kinds),
                "owners": sorted(spec.owners),
                "executable": graph.get(spec.key).is_executable,
            }
            for key, spec in sorted(specs.items())
        },
        "checks": sorted(f"{key.asset_key.to_user_string()}: {key.name}" for key in graph.asset_check_keys),
        "jobs": sorted(job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")),
        "sensors": {each.name: each.default_status.value for each in defs.get_repository_def().sensor_defs},
        "schedules": {each.name: each.cron_schedule for each in defs.get_repository_def().schedule_defs},
    } == snapshot


def test_every_asset_has_an_owner_a_kind_a_group_and_a_description(specs: dict[str, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        assert spec.owners, key
        assert spec.kinds, key
        assert spec.group_name not in (None, "default"), key
        assert spec.description, key


def test_a_captured_table_is_followed_by_its_noun_from_oltp_to_staging(
    specs: dict[str, dg.AssetSpec],
) -> None:
    graph_deps = {key: {dep.asset_key.to_user_string() for dep in spec.deps} for key, spec in specs.items()}
    for table in CAPTURED_TABLES:
        assert f"oltp/{table.name}" in graph_deps[f"cdc/{table.name}"]
        assert f"cdc/{table.name}" in graph_deps[f"raw/{table.name}"]
        assert any(f"raw/{table.name}" in deps for key, deps in graph_deps.items() if key.startswith("staging/")), (
            table.name
        )


def test_every_mart_shows_its_columns_before_it_was_ever_built(specs: dict[str, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        if key.startswith("marts/"):
            assert "dagster/column_schema" in spec.metadata, key


def test_workspace_and_pyproject_name_the_same_module() -> None:
    workspace = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text())
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert workspace["load_from"][0]["python_module"]["module_name"] == project["code_location_target_module"]


def test_the_dbt_folder_holds_no_python_which_would_hide_the_dbt_package() -> None:
    assert not list((PROJECT_ROOT / "dbt").rglob("*.py"))
