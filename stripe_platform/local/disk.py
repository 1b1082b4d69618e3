"""The free-space limit: what writes stops below it, cleanly, before a server meets a full disk."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from stripe_platform.local.errors import NotEnoughDisk
from stripe_platform.local.home import CONTENTS
from stripe_platform.settings import Settings

FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """The bytes an ordinary user may still write where the folder is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def data_folders(settings: Settings) -> Mapping[str, Path]:
    """The folders that this stack writes to, by what to call them: its home, and what lies on a disk of its own.

    That is what a link in the home leads to, and what is mounted there.
    """
    home = settings.home
    inside = {f"the stack's {name}": home / name for name in CONTENTS} | {"the stack's lake/raw": settings.lake}
    root, device = home.resolve(), home.stat().st_dev if home.exists() else None
    elsewhere = {
        what: resolved for what, path in inside.items() if _is_elsewhere(resolved := path.resolve(), root, device)
    }
    return {"the stack's folder": settings.home, **elsewhere}


def check_free_space(
    settings: Settings, *, into: Path | None = None, size: int = 0, free_bytes: FreeBytes = free_bytes
) -> None:
    """Raise `NotEnoughDisk`, which names folder, free, needed and remedy, when less than `least_free_bytes` are free.

    `size` bytes that will be written to the folder `into` at once must leave as much. Cheap (a `statvfs` a disk):
    called before each batch is written, so that a writer ends between two batches and goes on from there when there
    is room again.
    """
    limit = int(settings.least_free_bytes)
    wanted = [(folder, limit) for folder in data_folders(settings).values()]
    if into is not None:
        wanted.append((into, limit + size))
    for folder, needed in wanted:
        free = free_bytes(folder)
        if free < needed:
            raise NotEnoughDisk(folder, free, needed)


def _is_elsewhere(path: Path, home: Path, device: int | None) -> bool:
    if not path.is_relative_to(home):
        return True
    return path.exists() and path.stat().st_dev != device
