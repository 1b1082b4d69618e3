"""Dagster's history is kept for some days; the newest of each asset and check for ever."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from stripe_platform.history import purge as module
from stripe_platform.history import storage
from stripe_platform.history.assets import history
from stripe_platform.history.purge import Purged, purge
from stripe_platform.jobs import dagster_maintenance
from stripe_platform.settings import Settings

CHECK = dg.AssetCheckKey(dg.AssetKey("often"), "holds")
AGES = {"kept_run_days": 7, "kept_failed_run_days": 30}


class Failing(Exception):
    pass


@dg.asset
def often() -> dg.MaterializeResult[None]:
    """Made by every run."""
    sys.stdout.write("log " * 50_000)
    return dg.MaterializeResult(metadata={"rows": 1})


@dg.asset
def once() -> None:
    """Made by the first run alone."""


@dg.asset
def failing() -> None:
    """Never made."""
    raise Failing


@dg.asset_check(asset=often)
def holds() -> dg.AssetCheckResult:
    """Evaluated by every run of its asset."""
    return dg.AssetCheckResult(passed=True, metadata={"text": "x" * 20_000})


DEFS = dg.Definitions(
    assets=[often, once, failing],
    asset_checks=[holds],
    jobs=[
        dg.define_asset_job(name, selection=selection, executor_def=dg.in_process_executor)
        for name, selection in {
            "often_job": dg.AssetSelection.assets(often),
            "once_job": dg.AssetSelection.assets(once),
            "failing_job": dg.AssetSelection.assets(failing),
        }.items()
    ],
)


@dataclass(frozen=True)
class Made:
    """A DAGSTER_HOME with runs of today, by their ids in order."""

    home: Path
    once: str
    often: list[str]
    failed: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made once, for a run takes a second."""
    home = tmp_path_factory.mktemp("history")
    with dg.instance_for_test(temp_dir=str(home)) as instance:
        once, *often, failed = (
            DEFS.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False).run_id
            for job in ("once_job", *["often_job"] * 5, "failing_job")
        )
    return Made(home, once, often, failed)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"stripe_platform_home": tmp_path, **AGES})


@pytest.fixture
def instance(made: Made, settings: Settings) -> Iterator[dg.DagsterInstance]:
    """An instance of its own on a copy of the history."""
    shutil.copytree(made.home, settings.dagster_home)
    with dg.instance_for_test(temp_dir=str(settings.dagster_home)) as instance:
        yield instance


@pytest.fixture
def days_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the purge's clock so many days ahead of that of the runs."""

    def move(days: float) -> None:
        class Later(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return datetime.now(UTC) + timedelta(days=days)

        monkeypatch.setattr(module, "datetime", Later)

    return move


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def materializing_runs(instance: dg.DagsterInstance) -> list[str]:
    """The runs by which Dagster knows that `often` was made, the newest first."""
    return [record.run_id for record in instance.fetch_materializations(CHECK.asset_key, limit=99).records]


def traces(settings: Settings, run_id: str) -> list[str]:
    """The files and folders that bear the run's id."""
    return [str(path) for path in settings.dagster_home.rglob(f"*{run_id}*")]


def test_old_runs_go_with_all_they_left_and_the_newest_of_each_asset_and_check_stays(
    instance: dg.DagsterInstance, settings: Settings, made: Made, days_later: Callable[[float], None]
) -> None:
    *old, newest = made.often
    days_later(8)
    before = size(settings.dagster_home)
    purged = purge(instance, settings)
    assert (purged.runs_deleted, purged.runs_kept, purged.runs_left) == (len(old), 2, 0)
    assert purged.check_results_deleted == len(old)
    assert purged.not_compacted == {}
    assert set(instance.get_run_ids()) == {made.once, newest, made.failed}
    for run_id in old:
        assert traces(settings, run_id) == []
    assert materializing_runs(instance) == [newest]
    for asset, run_id in (("once", made.once), ("often", newest)):
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event
        assert event.run_id == run_id
        assert instance.all_logs(run_id)
    result = instance.get_latest_asset_check_evaluation_record(CHECK)
    assert result
    assert result.run_id == newest
    assert (purged.bytes_before, purged.bytes_after) == (before, size(settings.dagster_home))
    assert purged.bytes_after < 0.6 * before


def test_a_run_is_kept_for_its_days_and_a_failed_one_for_more(
    instance: dg.DagsterInstance, settings: Settings, made: Made, days_later: Callable[[float], None]
) -> None:
    for days, deleted, good_is_there, failed_is_there in (
        (6.9, 0, True, True),
        (29.9, 4, False, True),
        (30.1, 1, False, False),
    ):
        days_later(days)
        assert purge(instance, settings).runs_deleted == deleted
        assert instance.has_run(made.often[0]) is good_is_there
        assert instance.has_run(made.failed) is failed_is_there


def test_a_run_that_has_not_ended_stays(
    instance: dg.DagsterInstance, settings: Settings, days_later: Callable[[float], None]
) -> None:
    under_way = instance.create_run_for_job(DEFS.resolve_job_def("often_job"), status=dg.DagsterRunStatus.STARTED)
    days_later(365)
    purge(instance, settings)
    assert instance.has_run(under_way.run_id)


def test_what_does_not_fit_into_a_night_is_the_next_one_s(
    instance: dg.DagsterInstance, settings: Settings, days_later: Callable[[float], None]
) -> None:
    days_later(8)
    cut_short = purge(instance, settings, limit=timedelta(0))
    assert (cut_short.runs_deleted, cut_short.runs_left) == (0, 4)
    assert purge(instance, settings).runs_left == 0


@pytest.mark.parametrize("fatal", ["delete_events", "forget_shard"])
def test_a_purge_killed_in_the_middle_of_a_run_is_finished_by_the_next_one(
    instance: dg.DagsterInstance,
    settings: Settings,
    made: Made,
    days_later: Callable[[float], None],
    fatal: str,
) -> None:
    days_later(8)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module if fatal == "forget_shard" else instance.event_log_storage, fatal, killed)
        with pytest.raises(KeyboardInterrupt):
            purge(instance, settings)
    assert traces(settings, made.often[0]) != []
    assert purge(instance, settings).runs_deleted == 4
    assert traces(settings, made.often[0]) == []
    assert materializing_runs(instance) == made.often[-1:]


def test_free_pages_are_given_back_bit_by_bit_once_a_file_was_written_anew(
    instance: dg.DagsterInstance,
    settings: Settings,
    days_later: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    purge(instance, settings)
    # From now on nothing may be written anew, be it ever so small.
    monkeypatch.setattr(storage, "LARGEST_REWRITTEN_BYTES", 0)
    monkeypatch.setattr(storage, "PAGES_AT_ONCE", 10)
    index = settings.dagster_home / "history" / "runs" / "index.db"
    full = index.stat().st_size
    days_later(8)
    assert purge(instance, settings).not_compacted == {}
    assert index.stat().st_size < 0.7 * full


def test_a_file_too_large_to_be_written_anew_is_named_and_the_runs_go_all_the_same(
    instance: dg.DagsterInstance,
    settings: Settings,
    days_later: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "LARGEST_REWRITTEN_BYTES", 0)
    days_later(8)
    purged = purge(instance, settings)
    assert purged.runs_deleted == 4
    assert set(purged.not_compacted) == {"index.db", "runs.db", "schedules.db"}
    assert "VACUUM" in purged.not_compacted["index.db"]


def test_the_job_reports_its_figures(instance: dg.DagsterInstance, settings: Settings) -> None:
    defs = dg.Definitions(assets=[history], jobs=[dagster_maintenance], resources={"settings": settings})
    result = defs.resolve_job_def(dagster_maintenance.name).execute_in_process(instance=instance)
    (made,) = result.get_asset_materialization_events()
    figures = set(made.materialization.metadata)
    assert {*Purged.__dataclass_fields__, "kept_run_days", "kept_failed_run_days"} <= figures
