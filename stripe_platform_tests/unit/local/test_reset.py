import errno
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stripe_platform.cli import app
from stripe_platform.local import artifacts, postgres, reset, stack
from stripe_platform.local.dagster import DAGSTER
from stripe_platform.local.environment import environment
from stripe_platform.local.errors import ForeignHome, HomeTaken, NotAStack, NotRemoved, ResetUnfinished
from stripe_platform.local.home import somebody_s
from stripe_platform.local.postgres import folder_elsewhere
from stripe_platform.settings import PROJECT_ROOT, Settings

DATA = ("postgres", "kafka", "mongodb", "lake", "warehouse", "dagster", "secrets", "cuts", "dbt", "logs")


@pytest.fixture(autouse=True)
def reachable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "REACHABLE_FOLDER", tmp_path / "reachable")


def made(home: Path) -> Settings:
    """A stopped stack's folder with something in each of its folders."""
    for name in (*DATA, "run"):
        (home / name / "below").mkdir(parents=True)
        (home / name / "below" / "file").write_text("data")
    (home / "run" / "stack.lock").touch()
    return Settings(stripe_platform_home=home)


def entries(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_all_data_goes_and_only_the_lock_stays(tmp_path: Path) -> None:
    settings, other = made(tmp_path / "one"), made(tmp_path / "two")
    others = entries(other.home)
    reset.reset(settings)
    assert entries(settings.home) == {"run", "run/stack.lock"}
    assert entries(other.home) == others
    assert reset.reset(settings).removed == ()


def test_what_the_platform_did_not_make_stays_and_is_named(tmp_path: Path) -> None:
    settings = made(tmp_path / "home")
    (settings.home / "tools").mkdir()
    (settings.home / "thesis.txt").write_text("mine")
    plan = reset.reset(settings)
    assert [path.name for path in plan.kept] == ["thesis.txt", "tools"]
    assert "left alone: thesis.txt, tools" in plan.describe()
    assert (settings.home / "thesis.txt").read_text() == "mine"


def test_links_go_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    settings = made(tmp_path / "home")
    large = tmp_path / "large"
    shutil.move(settings.home / "lake", large)
    (settings.home / "lake").symlink_to(large)
    reset.reset(settings)
    assert not os.path.lexists(settings.home / "lake")
    assert (large / "below" / "file").exists()


def test_postgresql_s_folder_elsewhere_goes_and_that_of_another_home_stays(tmp_path: Path) -> None:
    settings = made(tmp_path / "home")
    shutil.rmtree(settings.home / "postgres")
    ours, theirs = folder_elsewhere(settings), folder_elsewhere(Settings(stripe_platform_home=tmp_path / "other"))
    for folder in (ours, theirs):
        (folder / "base").mkdir(parents=True)
    # As after a copy of the other home.
    (settings.home / "postgres").symlink_to(theirs)
    reset.reset(settings)
    assert not ours.exists()
    assert (theirs / "base").exists()


@pytest.mark.parametrize("fatal", range(1, len(DATA) + 1))
def test_a_reset_cut_short_keeps_the_stack_from_starting_until_another_one_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int
) -> None:
    settings = made(tmp_path / "home")
    remove, calls = reset._remove, []

    def remove_until_killed(path: Path) -> None:
        calls.append(path)
        if len(calls) == fatal:
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(reset, "_remove", remove_until_killed)
    with pytest.raises(KeyboardInterrupt):
        reset.reset(settings)
    with pytest.raises(ResetUnfinished, match="stripe-platform reset --yes"):
        stack.start(settings)
    with pytest.raises(ResetUnfinished):
        stack.start_beside(settings, DAGSTER)
    monkeypatch.setattr(reset, "_remove", remove)
    reset.reset(settings)
    assert entries(settings.home) == {"run", "run/stack.lock"}


@pytest.mark.parametrize("home", [Path("/"), Path.home(), Path.home().parent, PROJECT_ROOT, PROJECT_ROOT.parent])
def test_a_folder_that_holds_a_home_or_the_project_is_refused(home: Path) -> None:
    with pytest.raises(NotAStack, match=r"nothing was removed.*holds more than a stack"):
        reset.reset(Settings(stripe_platform_home=home))


def test_a_home_folder_that_is_reached_by_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = made(tmp_path / "disk" / "of_mine")
    (tmp_path / "of_mine").symlink_to(settings.home)
    monkeypatch.setenv("HOME", str(tmp_path / "of_mine"))
    before = entries(settings.home)
    with pytest.raises(NotAStack, match="holds more than a stack"):
        reset.reset(settings)
    assert entries(settings.home) == before


@pytest.mark.parametrize("name", ["logs", "dbt", "tmp", "dagster", "lake"])
def test_no_stack_begins_where_somebody_has_files_under_its_names_so_that_no_reset_takes_them(
    tmp_path: Path, name: str
) -> None:
    settings = Settings(stripe_platform_home=tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    for start in (stack.start, partial(stack.start_beside, server=DAGSTER)):
        with pytest.raises(HomeTaken, match=f"{name}.*STRIPE_PLATFORM_HOME"):
            start(settings)
    (tmp_path / "run").mkdir(exist_ok=True)
    stack.stop(settings)
    with pytest.raises(NotAStack):
        reset.reset(settings)
    assert (tmp_path / name / "thesis.txt").read_text() == "mine"


def test_links_empty_folders_and_what_commands_make_before_the_first_start_are_no_hindrance(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for folder in ("dbt/target", "dagster/history", "cuts", "lake/raw", "logs", "secrets"):
        (home / folder).mkdir(parents=True)
    (home / "secrets" / "cdc_password").write_text("by hand")
    (home / "thesis.txt").write_text("mine")
    (home / "kafka").symlink_to(tmp_path)
    assert somebody_s(home) == ()


def test_what_a_process_keeps_writing_to_is_named_with_the_remedy_and_the_reset_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = made(tmp_path / "home")
    rmtree = shutil.rmtree

    def rmtree_beside_a_writer(path: Path) -> None:
        rmtree(path)
        if path.name == "dagster":
            path.mkdir()
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", rmtree_beside_a_writer)
        with pytest.raises(NotRemoved, match=r"dagster could not be removed \(Directory not empty\).*reset --yes"):
            reset.reset(settings)
    with pytest.raises(ResetUnfinished):
        stack.start(settings)
    reset.reset(settings)
    assert entries(settings.home) == {"run", "run/stack.lock"}


def test_a_file_that_comes_while_its_folder_is_removed_goes_with_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = made(tmp_path / "home")
    rmtree, late = shutil.rmtree, [settings.home / "logs"]

    def rmtree_beside_a_writer(path: Path) -> None:
        if path in late:
            late.remove(path)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree_beside_a_writer)
    reset.reset(settings)
    assert entries(settings.home) == {"run", "run/stack.lock"}


def test_a_folder_without_the_mark_of_a_stack_is_refused(tmp_path: Path) -> None:
    settings = made(tmp_path / "home")
    (settings.home / "run" / "stack.lock").unlink()
    before = entries(settings.home)
    with pytest.raises(NotAStack, match=r"no run/stack\.lock"):
        reset.reset(settings)
    assert entries(settings.home) == before


def test_a_link_in_place_of_the_home_is_refused(tmp_path: Path) -> None:
    settings, other = made(tmp_path / "home"), made(tmp_path / "other")
    shutil.rmtree(settings.home)
    settings.home.symlink_to(other.home)
    before = entries(other.home)
    with pytest.raises(NotAStack, match="symbolic link"):
        reset.reset(settings)
    assert entries(other.home) == before


def test_another_user_s_stack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = made(tmp_path / "home")
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ForeignHome, match=str(settings.home)):
        reset.reset(settings)


def test_the_cache_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = made(tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(settings.home / "cache"))
    artifacts.cache_folder().mkdir(parents=True)
    reset.reset(settings)
    assert artifacts.cache_folder().is_dir()
    again = made(tmp_path / "again")
    monkeypatch.setenv("XDG_CACHE_HOME", str(again.home / "lake"))
    with pytest.raises(NotAStack, match="installed programs in lake"):
        reset.reset(again)
    assert (again.home / "kafka").exists()


def test_what_was_never_started_has_nothing_to_remove(tmp_path: Path) -> None:
    assert reset.reset(Settings(stripe_platform_home=tmp_path / "home")).removed == ()
    assert not (tmp_path / "home").exists()


@pytest.fixture
def on_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = made(tmp_path / "home")
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return settings


def test_without_a_terminal_and_without_yes_nothing_is_removed(on_command_line: Settings) -> None:
    before = entries(on_command_line.home)
    answer = CliRunner().invoke(app, ["reset"], input="y\n")
    assert answer.exit_code == 1
    assert "stripe-platform reset --yes" in answer.stderr
    assert entries(on_command_line.home) == before


@pytest.mark.parametrize(("reply", "is_removed"), [(True, True), (False, False)])
def test_on_a_terminal_it_asks_and_says_which_folder_and_what(
    on_command_line: Settings, monkeypatch: pytest.MonkeyPatch, reply: bool, is_removed: bool
) -> None:
    def confirm(question: str, *, abort: bool, err: bool) -> None:
        if not reply:
            raise typer.Abort

    monkeypatch.setattr("stripe_platform.cli._is_asked_on_terminal", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    answer = CliRunner().invoke(app, ["reset"])
    assert answer.exit_code == (0 if is_removed else 1)
    for part in (str(on_command_line.home), "PostgreSQL's data", "Kafka's topics", "secrets", "Dagster's history"):
        assert part in answer.stderr
    assert (on_command_line.home / "kafka").exists() is not is_removed


def test_with_yes_it_does_not_ask(on_command_line: Settings) -> None:
    answer = CliRunner().invoke(app, ["reset", "--yes"])
    assert answer.exit_code == 0
    assert entries(on_command_line.home) == {"run", "run/stack.lock"}
