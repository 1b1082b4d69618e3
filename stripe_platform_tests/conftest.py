"""Stacks of real servers for the tests: on free ports, in temporary folders, beside a running `make up`."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from stripe_platform.local import postgres
from stripe_platform.local import stack as local_stack
from stripe_platform.local.environment import environment
from stripe_platform.settings import Settings

SERVERS = ("postgres", "kafka", "kafka_controller", "connect", "mongodb", "dagster", "dashboard", "api", "metrics")
# The pid of the test run is in the name, so that a later run can clear up after one that was killed.
HOME_PREFIX = "stripe-platform-test-"
# Servers that live for minutes never earn back what the JVM's second compiler costs: half the time of their start.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

NewSettings = Callable[..., Settings]
NewStack = Callable[[], Settings]


@contextmanager
def _made_and_removed() -> Iterator[NewSettings]:
    """Makes settings of stacks that are not started, each in a temporary folder; at the end they are stopped."""
    with ExitStack() as at_end:

        def make(subfolder: str = "") -> Settings:
            folder = Path(tempfile.mkdtemp(prefix=f"{HOME_PREFIX}{os.getpid()}-"))
            # PostgreSQL, when root runs the tests, is another user who must get through.
            folder.chmod(0o711)
            settings = Settings.model_validate({"stripe_platform_home": folder / subfolder, **_free_ports()})
            at_end.callback(_remove, settings, folder)
            return settings

        yield make


@pytest.fixture(scope="session", autouse=True)
def nothing_left_of_killed_runs() -> None:
    _clear_up_after_killed_runs()


# Of a module: servers that idle until the end of the session would take memory and time from the tests after it.
@pytest.fixture(scope="module")
def new_settings() -> Iterator[NewSettings]:
    """Makes settings of a stack that is not started, in a temporary folder; it is stopped at the module's end."""
    with _made_and_removed() as make:
        yield make


@pytest.fixture(scope="module")
def new_stack(new_settings: NewSettings) -> NewStack:
    """Makes running stacks of bare servers (no schema, no topics, no connector)."""
    return lambda: _started(new_settings())


@pytest.fixture(scope="module")
def new_platform(new_stack: NewStack) -> NewStack:
    """Makes running stacks that are migrated and have their topics and their connector, but no rows."""
    return lambda: _registered(new_stack())


@pytest.fixture(scope="session")
def lasting_settings() -> Iterator[NewSettings]:
    """As `new_settings`, for what a whole session shares."""
    with _made_and_removed() as make:
        yield make


@pytest.fixture(scope="session")
def stack(lasting_settings: NewSettings) -> Settings:
    """The one stack that the whole session shares: running, empty, migrated, its connector registered."""
    return _registered(_started(lasting_settings()))


@pytest.fixture
def stack_environment(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The shared stack, with the environment variables that lead this process and its children to it."""
    for name, value in environment(stack).items():
        monkeypatch.setenv(name, value)
    return stack


def _started(settings: Settings) -> Settings:
    running = local_stack.start(settings).settings
    # The data of a test need not outlive a power cut.
    postgres.give_up_durability(running)
    return running


def _registered(settings: Settings) -> Settings:
    # Not for tests that need bare servers or none.
    from stripe_platform.cdc.connector import register
    from stripe_platform.oltp.migrate import migrate

    migrate(settings)
    register(settings)
    return settings


def _free_ports() -> dict[str, int]:
    # All held at once, so that no two are the same.
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in SERVERS]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return {f"{s}_port": probe.getsockname()[1] for s, probe in zip(SERVERS, probes, strict=True)}


def _remove(settings: Settings, folder: Path) -> None:
    local_stack.stop(settings)
    if settings.home.is_dir():
        shutil.rmtree(postgres.data_folder(settings), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _clear_up_after_killed_runs() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{HOME_PREFIX}*"):
        owner = re.match(rf"{HOME_PREFIX}(\d+)-", folder.name)
        if owner and not psutil.pid_exists(int(owner[1])) and _is_own(folder):
            # Another test run may be clearing up the same folder.
            with suppress(FileNotFoundError):
                for lock in folder.glob("**/run/stack.lock"):
                    local_stack.stop(Settings(stripe_platform_home=lock.parent.parent))
            shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False
