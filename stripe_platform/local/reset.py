"""Remove all data of one stack, so that the next start begins from nothing; the caches of downloads stay."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stripe_platform.local.artifacts import cache_folder
from stripe_platform.local.errors import ForeignHome, NotAStack, NotRemoved
from stripe_platform.local.home import CONTENTS
from stripe_platform.local.postgres import folder_elsewhere
from stripe_platform.local.server import run_folder
from stripe_platform.local.stack import PRIVATE_FOLDERS, RESET_MARK, Progress, lock_file, only_one, stop
from stripe_platform.local.survivors import end_processes_of
from stripe_platform.settings import PROJECT_ROOT, Settings

# PostgreSQL's first start leaves this one behind when it is cut short.
UNFINISHED = "postgres.unfinished"
ATTEMPTS = 3
PAUSE_S = 0.2


@dataclass(frozen=True)
class Plan:
    """What a reset takes and what it leaves: `removed` exists, `kept` lies in the home but is not the platform's."""

    home: Path
    removed: tuple[Path, ...]
    kept: tuple[Path, ...]

    def describe(self) -> str:
        """One line for the person who is asked."""
        what = dict.fromkeys(CONTENTS[path.name] for path in self.removed if path.name in CONTENTS)
        kept = f"; left alone: {', '.join(path.name for path in self.kept)}" if self.kept else ""
        return f"{self.home}: {', '.join(what) or 'no data'}{kept}"


def plan_reset(settings: Settings) -> Plan:
    """What a reset would do; `NotAStack` or `ForeignHome` where it must not be done. Changes nothing."""
    home = settings.home
    # Resolved as the home is: a home folder is often reached by a link.
    if any(path.resolve().is_relative_to(home.resolve()) for path in (Path.home(), PROJECT_ROOT)):
        raise NotAStack(home, "holds more than a stack: it is a home folder, the project, or above one of them")
    if home.is_symlink():
        raise NotAStack(home, "is a symbolic link")
    if not home.exists():
        return Plan(home, tuple(_elsewhere(settings)), ())
    mark = lock_file(settings)
    if mark.is_symlink() or not mark.is_file():
        raise NotAStack(home, f"does not look like a stack's folder, for there is no {mark.relative_to(home)}")
    owner = mark.stat().st_uid
    if owner != os.geteuid():
        raise ForeignHome(home, owner)
    removed = (*_elsewhere(settings), *_made_in(home))
    for path in removed:
        if any(kept.resolve().is_relative_to(path) for kept in (cache_folder(), Path(sys.prefix))):
            raise NotAStack(home, f"holds installed programs in {path.name}, which a reset would remove")
    return Plan(home, removed, tuple(p for p in sorted(home.iterdir()) if p not in (*removed, run_folder(settings))))


def reset(settings: Settings, *, progress: Progress | None = None) -> Plan:
    """Stop the stack, end what is left of it, remove its data; gives what was removed and what stays.

    Cut short, it leaves a home that refuses to start and that another reset finishes. The home stays with its lock
    alone. Raises as `plan_reset`, `StackBusy`, and `NotRemoved` when somebody still writes.
    """
    plan_reset(settings)
    stop(settings, progress=progress)
    if not settings.home.exists():
        plan = plan_reset(settings)
        _remove_all(plan)
        return plan
    with only_one(settings):
        # Somebody may have started it again before the lock was ours.
        end_processes_of(settings.home)
        plan = plan_reset(settings)
        mark = run_folder(settings) / RESET_MARK
        mark.touch(mode=0o600)
        _remove_all(plan)
        for path in run_folder(settings).iterdir():
            if path not in (mark, lock_file(settings)):
                _remove(path)
        mark.unlink()
    return plan


def _made_in(home: Path) -> Iterator[Path]:
    names = {*CONTENTS, *PRIVATE_FOLDERS, UNFINISHED} - {"run"}
    yield from (path for path in sorted(home.iterdir()) if path.name in names or path.name.startswith(".initdb-"))


def _elsewhere(settings: Settings) -> Iterator[Path]:
    folder = folder_elsewhere(settings)
    yield from (path for path in (folder, folder.with_name(f"{folder.name}.unfinished")) if path.is_dir())


def _remove_all(plan: Plan) -> None:
    for path in plan.removed:
        _remove(path)


def _remove(path: Path) -> None:
    for attempt in range(ATTEMPTS):
        try:
            # A link is somebody's choice of place: it goes, what it leads to stays.
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            # A process that is no server of the stack, such as a run, wrote to it or removed from it meanwhile.
            if attempt == ATTEMPTS - 1:
                raise NotRemoved(path, error) from error
            time.sleep(PAUSE_S)
        else:
            return
