import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from stripe_platform.cdc.cut import Cut
from stripe_platform.cdc.cut_store import save_cut
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings
from stripe_platform.warehouse.cuts import NoCut, cut_to_build_on
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import dbt_environment, new_run_target
from stripe_platform.warehouse.staging import staging_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(stripe_platform_home=tmp_path)


def make_cut_in(settings: Settings, run_id: str) -> None:
    save_cut(
        settings,
        run_id,
        Cut(f"cut of {run_id}", datetime(2026, 1, 1, tzinfo=UTC), {"charges": {0: 1}}, {"charges": "topic"}),
    )


def test_a_run_builds_on_the_cut_it_made(settings: Settings) -> None:
    make_cut_in(settings, "this-run")
    make_cut_in(settings, "later-run")
    assert cut_to_build_on(settings, "this-run").id == "cut of this-run"


def test_a_run_that_made_no_cut_builds_on_the_newest(settings: Settings) -> None:
    make_cut_in(settings, "earlier-run")
    make_cut_in(settings, "later-run")
    assert cut_to_build_on(settings, "this-run").id == "cut of later-run"


def test_without_any_cut_the_error_says_how_to_make_one(settings: Settings) -> None:
    with pytest.raises(NoCut, match="stripe-platform run oltp_to_warehouse"):
        cut_to_build_on(settings, "this-run")


def test_every_captured_table_has_a_source_a_state_and_a_staging_model() -> None:
    (source,) = yaml.safe_load((PROJECT_DIR / "models/staging/sources.yml").read_text())["sources"]
    assert [table["name"] for table in source["tables"]] == [table.name for table in CAPTURED_TABLES]
    models = {path.stem for path in (PROJECT_DIR / "models/staging").rglob("*.sql")}
    assert models == {f"state_{table.name}" for table in CAPTURED_TABLES} | {
        staging_model(table.name) for table in CAPTURED_TABLES
    }


def test_the_state_of_a_table_is_kept_by_its_primary_key() -> None:
    for table in CAPTURED_TABLES:
        text = (PROJECT_DIR / f"models/staging/state/state_{table.name}.sql").read_text()
        assert f"latest_state('{table.name}', key={list(table.key)})" in text


def test_the_variables_of_the_profile_are_set_only_for_the_block(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_BUILD_PATH", "before")
    with dbt_environment(settings):
        assert os.environ["WAREHOUSE_BUILD_PATH"] == str(settings.warehouse_folder / "build.duckdb")
    assert os.environ["WAREHOUSE_BUILD_PATH"] == "before"


def test_only_the_target_folders_of_the_last_ten_runs_are_kept(settings: Settings) -> None:
    for number in range(15):
        folder = new_run_target(settings, f"run-{number:02}")
        os.utime(folder, (number, number))
    assert sorted(path.name for path in folder.parent.iterdir()) == [f"run-{number:02}" for number in range(5, 15)]
