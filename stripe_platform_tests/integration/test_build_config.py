"""What a run of the models asks of dbt by its configuration, and what it says of the cut that it built on."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import dagster as dg
import pytest
from dagster_dbt import DbtCliResource

from stripe_platform.cdc.cut_store import save_cut
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import mark_tested, prepare_build
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.project import dbt_resource
from stripe_platform_tests.integration.test_warehouse import Lake

BUILD = ["build", "--exclude-resource-type", "unit_test"]


class NotRun(Exception):
    """dbt was asked, and that is all."""


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRIPE_PLATFORM_HOME", str(tmp_path_factory.mktemp("manifest")))
        from stripe_platform.warehouse import assets

        yield assets


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A change log of one country, and a tested build of it by the code of today."""
    lake = Lake(tmp_path_factory.mktemp("configured"))
    lake.write("countries", {"iso2": "FR", "name": "France", "region": "Europe"})
    save_cut(lake.settings, "a-run", lake.cut())
    with builder(lake.settings):
        mark_tested(lake.settings, prepare_build(lake.settings, lake.cut()))
    return lake


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that dbt was asked for; none is run."""
    asked: list[list[str]] = []

    def cli(dbt: DbtCliResource, arguments: list[str], **_: Any) -> NoReturn:
        asked.append(arguments)
        raise NotRun

    monkeypatch.setattr(DbtCliResource, "cli", cli)
    return asked


def run(settings: Settings, assets: ModuleType, config: dict[str, Any], selection: Any = None) -> Any:
    return dg.materialize(
        [assets.warehouse_models],
        resources={"settings": settings, "dbt": dbt_resource(settings)},
        run_config={"ops": {"warehouse_models": {"config": config}}},
        selection=selection,
        raise_on_error=False,
    )


@pytest.mark.parametrize(
    ("config", "further"),
    [
        ({}, []),
        ({"month": "2026-01"}, ["--vars", '{"month": "2026-01-01"}']),
        ({"full_refresh": True}, ["--full-refresh"]),
        ({"month": "2026-12", "full_refresh": True}, ["--full-refresh", "--vars", '{"month": "2026-12-01"}']),
    ],
)
def test_a_run_asks_dbt_for_what_its_config_says(
    lake: Lake, assets: ModuleType, asked: list[list[str]], config: dict[str, Any], further: list[str]
) -> None:
    run(lake.settings, assets, config)
    assert asked == [BUILD + further]


def test_a_build_by_no_tested_code_is_whole_without_being_asked(
    tmp_path: Path, assets: ModuleType, asked: list[list[str]]
) -> None:
    lake = Lake(tmp_path)
    save_cut(lake.settings, "a-run", lake.cut())
    run(lake.settings, assets, {})
    assert asked == [[*BUILD, "--full-refresh"]]


@pytest.mark.parametrize("month", ["2026-1", "2026-13", "2026-00", "2026-01-01", "January 2026", "2026-01\n", ""])
def test_a_malformed_month_is_refused_with_an_example_before_dbt_is_asked(
    lake: Lake, assets: ModuleType, asked: list[list[str]], month: str
) -> None:
    refused = run(lake.settings, assets, {"month": month})
    (failed,) = [event for event in refused.all_events if event.is_step_failure]
    said = failed.step_failure_data.error_display_string
    assert "BuildConfig\nmonth\n" in said
    assert "not a month: give its year and number, as in 2026-01" in said
    assert asked == []


def test_a_config_of_another_name_is_refused_by_dagster(lake: Lake, assets: ModuleType) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=r'"months".*month\?: '):
        run(lake.settings, assets, {"months": "2026-01"})


def test_every_model_that_was_built_names_the_cut_that_was_built_on(lake: Lake, assets: ModuleType) -> None:
    save_cut(lake.settings, "an-overtaken-run", lake.cut())
    with builder(lake.settings):
        lake.write("countries", {"iso2": "DE", "name": "Germany", "region": "Europe"})
        used = prepare_build(lake.settings, lake.cut()).cut

    built = run(lake.settings, assets, {}, dg.AssetSelection.assets(["marts", "dim_country"]).upstream())

    assert built.success
    cuts = {
        event.asset_key.to_user_string(): (
            event.materialization.metadata["cut"].value,
            event.materialization.metadata["cut_made_at"].value,
        )
        for event in built.get_asset_materialization_events()
    }
    models = ("staging/state_countries", "staging/stg_countries", "marts/dim_country")
    assert cuts == dict.fromkeys(models, (used.id, used.made_at.timestamp()))
