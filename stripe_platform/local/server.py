"""What every server of the stack has to say about itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from stripe_platform.settings import Settings

# Dagster loads the whole graph first, on a machine that may be busy.
READY_TIMEOUT_S = 180
PROBE_TIMEOUT_S = 5


@dataclass(frozen=True)
class Program:
    """How the supervisor runs a server; `stop_limit` is the seconds until it is killed."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    folder: Path | None = None
    stop_signal: str = "TERM"
    stop_limit: int = 20


def _nothing(settings: Settings) -> None:
    return None


@dataclass(frozen=True)
class Server:
    """One server: its ports by setting, and what to do before, while and after it comes up.

    `why_not_ready` gives None once the server answers, else a reason to show; `finish` runs after that, at
    every start, and changes nothing when there is nothing to do.
    """

    name: str
    title: str
    ports: Callable[[Settings], Mapping[str, int]]
    program: Callable[[Settings], Program]
    why_not_ready: Callable[[Settings], str | None]
    prepare: Callable[[Settings], None] = _nothing
    finish: Callable[[Settings], None] = _nothing


def why_no_answer(address: str) -> str | None:
    """None once an HTTP server answers at the address with success."""
    try:
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            client.get(address).raise_for_status()
    except httpx.HTTPError:
        return "it does not answer yet"
    return None


def log_file(settings: Settings, name: str) -> Path:
    """Where the output of a server goes."""
    return settings.home / "logs" / f"{name}.log"


def run_folder(settings: Settings) -> Path:
    """Generated configuration, pid files and the supervisor's socket."""
    return settings.home / "run"


def write_private(file: Path, content: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text(content)
    part.replace(file)
