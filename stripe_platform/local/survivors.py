"""The processes of a stack, found by a mark in their environment, also when their supervisor was killed."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

# The supervisor has it, and every process below it: the home of the stack.
MARK = "STRIPE_PLATFORM_SUPERVISED"
# Connect does not end once its broker is gone: no use in waiting long.
GRACE_S = 5
KILL_TIMEOUT_S = 15
POLL_S = 0.05


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process of the stack in `home`, watched or not; this one and its parents are left out."""
    family = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in family and _mark_of(p) == str(home)]


def end_processes_of(home: Path) -> None:
    """End what runs of the stack in `home`, by force after a few seconds; returns when it is gone."""
    left = processes_of(home)
    _send(left, psutil.Process.terminate)
    _send(wait_for_end(left, GRACE_S), psutil.Process.kill)
    wait_for_end(left, KILL_TIMEOUT_S)


def wait_for_end(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until the processes are gone; gives those that are still there after `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := [p for p in processes if not _is_over(p)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return left


def _is_over(process: psutil.Process) -> bool:
    # In a container whose first process adopts none, an ended process stays as a zombie.
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _send(processes: list[psutil.Process], signal: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            signal(process)
