"""Looks at the stack's folder: whose it is, who may read it, whether its secrets are there."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stripe_platform.doctor.finding import Finding, ok, problem, warning
from stripe_platform.local.credentials import NAMES as SECRET_NAMES
from stripe_platform.local.server import run_folder
from stripe_platform.local.stack import PRIVATE_FOLDERS, RESET_MARK
from stripe_platform.settings import Settings

OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Home:
    """What can be seen of the folder: its owner (None: it is not there), what in it others may enter."""

    path: Path
    owner: int | None
    is_writable: bool = True
    open_folders: Sequence[str] = ()
    is_half_reset: bool = False


def look_at_home(settings: Settings) -> Finding:
    """The folder that holds all state of the stack."""
    home = settings.home
    if not home.exists():
        return judge_home(Home(home, None), os.geteuid())
    made = [home / name for name in PRIVATE_FOLDERS if (home / name).is_dir()]
    owners = {path.stat().st_uid for path in (*made, home)}
    return judge_home(
        Home(
            home,
            owner=next((owner for owner in owners if owner != os.geteuid()), os.geteuid()),
            is_writable=os.access(home, os.W_OK | os.X_OK),
            open_folders=[path.name for path in made if path.stat().st_mode & OTHERS],
            is_half_reset=(run_folder(settings) / RESET_MARK).exists(),
        ),
        os.geteuid(),
    )


def judge_home(home: Home, user: int) -> Finding:
    """One user's stack is of no use to another, and others may not look into it."""
    title = "stack's folder"
    if home.owner is None:
        return ok(title, f"{home.path} is made by the first start")
    if home.owner != user:
        remedy = "go on as that user, or set STRIPE_PLATFORM_HOME to a folder of your own"
        return problem(title, f"{home.path} belongs to the user with the id {home.owner}", remedy)
    if not home.is_writable:
        return problem(title, f"{home.path} may not be written", f"`chmod u+rwx {home.path}`")
    if home.is_half_reset:
        return problem(title, f"a reset of {home.path} was cut short", "`stripe-platform reset --yes` finishes it")
    if home.open_folders:
        folders = ", ".join(home.open_folders)
        remedy = "`stripe-platform up` closes them"
        return warning(title, f"{home.path}: others may enter {folders}, which hold payments or secrets", remedy)
    return ok(title, str(home.path))


@dataclass(frozen=True)
class Secrets:
    """The secrets that are set nowhere, the paths others may read, whether there is data made with them."""

    folder: Path
    missing: Sequence[str] = ()
    open_paths: Sequence[Path] = ()
    has_data: bool = False


def look_at_secrets(settings: Settings) -> Finding:
    """Set, by the environment or a file, and private. Their values are not looked at."""
    folder = settings.secrets
    paths = [folder, *(folder / name for name in SECRET_NAMES)] if folder.is_dir() else []
    return judge_secrets(
        Secrets(
            folder,
            missing=[name for name in SECRET_NAMES if getattr(settings, name) is None],
            open_paths=[path for path in paths if path.exists() and path.stat().st_mode & OTHERS],
            has_data=os.path.lexists(settings.home / "postgres"),
        )
    )


def judge_secrets(secrets: Secrets) -> Finding:
    """Lost secrets do not come back: what was made with them is closed to new ones."""
    if secrets.open_paths:
        return problem(
            "secrets",
            f"others may read {', '.join(map(str, secrets.open_paths))}",
            f"`chmod 700 {secrets.folder} && chmod 600 {secrets.folder}/*`",
        )
    if not secrets.missing:
        return ok("secrets", f"all set, and private in {secrets.folder}")
    names = ", ".join(secrets.missing)
    if secrets.has_data:
        remedy = "put the file back from a backup, or begin anew with `stripe-platform reset`"
        return problem("secrets", f"{names} not in {secrets.folder}, but there is data made with it", remedy)
    return ok("secrets", f"{names} made by the first start")
