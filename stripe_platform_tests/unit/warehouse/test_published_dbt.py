import errno
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse import project, published_dbt
from stripe_platform.warehouse.docs import write_docs
from stripe_platform.warehouse.metrics import run_mf
from stripe_platform.warehouse.project import DbtBusy, DbtTooSlow, captured_dbt, dbt_manifest
from stripe_platform.warehouse.published import OnlyOnDuckDB, published_path
from stripe_platform.warehouse.published_dbt import dbt_on_published, target_folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a stack that has published a file."""
    settings = Settings(stripe_platform_home=tmp_path)
    settings.warehouse_folder.mkdir(parents=True)
    published_path(settings).write_bytes(b"marts")
    return settings


@pytest.mark.parametrize("command", [write_docs, lambda settings: run_mf(settings, ["query"])])
def test_a_file_left_from_before_the_marts_moved_to_snowflake_is_not_told_of(
    settings: Settings, command: Callable[[Settings], object]
) -> None:
    with pytest.raises(OnlyOnDuckDB, match=r"dbt reads DuckDB's published file, and WAREHOUSE is 'snowflake'"):
        command(settings.model_copy(update={"warehouse": WarehouseEngine.SNOWFLAKE}))


def test_dbt_is_told_the_engine_whatever_the_environment_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE", "snowflake")
    with dbt_on_published(settings) as environment:
        assert environment["WAREHOUSE"] == "duckdb"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
def test_where_a_file_gets_no_second_name_dbt_reads_a_copy_that_is_gone_afterwards(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with dbt_on_published(settings) as environment:
        kept = Path(environment["WAREHOUSE_BUILD_PATH"])
        assert kept.read_bytes() == b"marts"
        assert not kept.samefile(published_path(settings))
    assert not kept.exists()


def test_a_command_that_waits_too_long_for_another_names_its_lock(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_dbt, "LOCK_LIMIT_SECONDS", 0)
    lock = target_folder(settings).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(DbtBusy, match=r"published\.lock for 0 s: wait"), dbt_on_published(settings):
        pass


def test_a_process_that_waits_too_long_for_the_manifest_names_its_lock(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "PARSE_LIMIT_SECONDS", 0)
    lock = settings.home / "dbt" / "target.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(DbtBusy, match=r"target\.lock for 0 s: wait"):
        dbt_manifest(settings)


def test_a_dbt_that_does_not_end_is_ended_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: float) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DbtTooSlow, match=r"`dbt docs generate` had not ended after 5 s: end what"):
        captured_dbt(["docs", "generate"], {}, limit_seconds=5)
