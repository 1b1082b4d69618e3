"""Executing a Dagster job from the command line."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import dagster as dg

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import PROJECT_ROOT, Settings


class UnknownJob(StripePlatformError):
    """No job has the name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"there is no job {name!r}: the jobs are {', '.join(known)}")


def write_instance_config(settings: Settings) -> None:
    """Put the instance's configuration into DAGSTER_HOME, where Dagster looks for it."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT_ROOT / "deploy" / "dagster.yaml", settings.dagster_home / "dagster.yaml")


@contextmanager
def instance_of(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of this stack, which a running `dagster dev` shares."""
    write_instance_config(settings)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    with dg.DagsterInstance.get() as instance:
        yield instance


# Dagster's own default, DEBUG, writes every event of every step.
LOGGING = {"loggers": {"console": {"config": {"log_level": "INFO"}}}}


def run_job(settings: Settings, name: str) -> bool:
    """Execute the job `name` in this process, recorded in the stack's instance; true when it succeeded."""
    from stripe_platform.definitions import defs  # seconds to load: only who runs a job pays

    known = sorted(job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__"))
    if name not in known:
        raise UnknownJob(name, known)
    with instance_of(settings) as instance:
        job = defs.resolve_job_def(name)
        with _ended_like_by_keyboard():
            return job.execute_in_process(run_config=LOGGING, instance=instance, raise_on_error=False).success


@contextmanager
def _ended_like_by_keyboard() -> Iterator[None]:
    """A closed terminal or a time limit ends the run as Ctrl-C does: recorded as failed, not as running for ever."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
