import os
import pwd
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
from filelock import FileLock
from pydantic import SecretStr

from stripe_platform.local import stack
from stripe_platform.local.environment import environment
from stripe_platform.local.errors import ForeignHome, NotEnoughDisk, NotThisMachine, StackBusy, UnreachableHome
from stripe_platform.local.ports import is_free
from stripe_platform.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(stripe_platform_home=tmp_path / "home")


def test_stopping_what_never_ran_leaves_no_trace(settings: Settings) -> None:
    stack.stop(settings)
    assert not settings.home.exists()


def test_servers_that_never_ran_are_stopped(settings: Settings) -> None:
    states = stack.server_states(settings)
    names = ["postgres", "kafka", "mongodb", "connect", "stream", "dagster", "dashboard"]
    assert [state.name for state in states] == names
    assert {(state.state, state.pid) for state in states} == {("STOPPED", None)}


def test_a_full_disk_is_told_before_anything_is_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 400_000_000))
    with pytest.raises(NotEnoughDisk, match=r"only 0\.4 GB.*STRIPE_PLATFORM_HOME"):
        stack.start(settings)
    assert not settings.secrets.exists()


def test_a_host_elsewhere_is_refused(tmp_path: Path) -> None:
    settings = Settings(stripe_platform_home=tmp_path, kafka_host="broker.example")
    with pytest.raises(NotThisMachine, match=r"KAFKA_HOST is broker\.example"):
        stack.start(settings)


def test_the_stack_of_another_user_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings.home / "run").mkdir(parents=True)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ForeignHome, match=str(settings.home)):
        stack.start(settings)


@contextmanager
def as_nobody() -> Iterator[None]:
    """The rights of another user, in this process: an interpreter in root's folder could not be started by him."""
    try:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        yield
    finally:
        os.seteuid(0)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@only_root
@pytest.mark.parametrize("made", ["run", "dbt"])
def test_another_user_s_home_is_refused_by_name_though_nothing_in_it_may_be_touched(
    new_settings: Callable[..., Settings], made: str
) -> None:
    settings = new_settings()
    (settings.home / made).mkdir(mode=0o700)
    with as_nobody(), pytest.raises(ForeignHome, match=rf"{settings.home} was started by the user with the id 0"):
        stack.start(settings)
    assert os.listdir(settings.home) == [made]


@only_root
@pytest.mark.parametrize("subfolder", ["closed/home", "home"])
def test_a_home_that_cannot_be_made_or_entered_is_told_with_the_remedy(
    new_settings: Callable[..., Settings], subfolder: str
) -> None:
    settings = new_settings(subfolder)
    if settings.home.parent.name == "closed":
        settings.home.mkdir(parents=True)
        settings.home.parent.chmod(0o700)
    with as_nobody(), pytest.raises(UnreachableHome, match=r"permission denied.*STRIPE_PLATFORM_HOME"):
        stack.start(settings)


def test_what_holds_payments_is_closed_to_others_and_the_home_stays_passable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Made by an earlier version, or by a command before `up`.
    settings.lake.mkdir(parents=True)
    settings.lake.parent.chmod(0o755)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 400_000_000))
    with pytest.raises(NotEnoughDisk):
        stack.start(settings)
    folders = (settings.lake.parent, settings.warehouse_folder, settings.dagster_home)
    others = [settings.home / name for name in ("run", "logs", "dbt", "cuts")]
    assert {folder.name: stat.S_IMODE(folder.stat().st_mode) for folder in (*folders, *others)} == dict.fromkeys(
        ("lake", "warehouse", "dagster", "run", "logs", "dbt", "cuts"), 0o700
    )
    assert settings.home.stat().st_mode & stat.S_IXOTH


def test_a_stack_that_another_command_is_busy_with_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings.home / "run").mkdir(parents=True)
    monkeypatch.setattr(stack, "LOCK_TIMEOUT_S", 0.01)
    with FileLock(settings.home / "run" / "stack.lock"), pytest.raises(StackBusy, match="another command"):
        stack.stop(settings)


def test_the_environment_leads_to_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(stripe_platform_home=tmp_path, postgres_port=21090, kafka_port=21091)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_the_environment_holds_no_secret(tmp_path: Path) -> None:
    secrets = {name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)}
    assert {"postgres_password", "snowflake_private_key_passphrase"} <= secrets
    settings = Settings.model_validate({"stripe_platform_home": tmp_path} | dict.fromkeys(secrets, "hidden"))
    variables = environment(settings)
    assert not {name.upper() for name in secrets} & variables.keys()
    assert not {"hidden", "**********"} & set(variables.values())


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        holder.listen()
        assert not is_free(port)
    assert is_free(port)
