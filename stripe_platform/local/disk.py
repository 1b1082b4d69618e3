"""The free-space limit: what writes stops below it, cleanly, before a server meets a full disk."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from stripe_platform.local.errors import NotEnoughDisk
from stripe_platform.settings import Settings

FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """The bytes an ordinary user may still write where the folder is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def data_folders(settings: Settings) -> Mapping[str, Path]:
    """The folders that this stack writes to, by what to call them: its home, and PostgreSQL's where that is a link."""
    postgres = settings.home / "postgres"
    elsewhere = {"PostgreSQL's data": postgres.resolve()} if postgres.is_symlink() else {}
    return {"the stack's folder": settings.home, **elsewhere}


def check_free_space(settings: Settings, *, free_bytes: FreeBytes = free_bytes) -> None:
    """Raise `NotEnoughDisk`, which names folder, free, needed and remedy, when less than `least_free_bytes` are free.

    Cheap (one `statvfs` a folder): called before each batch is written, so that a writer ends between two batches
    and goes on from there when there is room again.
    """
    for folder in data_folders(settings).values():
        free = free_bytes(folder)
        if free < settings.least_free_bytes:
            raise NotEnoughDisk(folder, free, settings.least_free_bytes)
