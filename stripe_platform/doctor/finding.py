"""What an examination comes to: findings, each with its remedy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

from stripe_platform.settings import Settings


class State(StrEnum):
    """How bad it is: a warning may stay, a problem may not."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(BaseModel):
    """One thing looked at; whatever is not ok has a remedy, a command or an action."""

    looked_at: str
    state: State
    found: str
    remedy: str | None = None


def ok(looked_at: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(looked_at=looked_at, state=State.OK, found=found)


def warning(looked_at: str, found: str, remedy: str) -> Finding:
    """Worth knowing; things still work."""
    return Finding(looked_at=looked_at, state=State.WARNING, found=found, remedy=remedy)


def problem(looked_at: str, found: str, remedy: str) -> Finding:
    """Something does not work, or soon will not."""
    return Finding(looked_at=looked_at, state=State.PROBLEM, found=found, remedy=remedy)


@dataclass(frozen=True)
class Probe:
    """One look: at what, how, by which of the local servers it `needs` to be up, and what to do if it fails itself."""

    looks_at: str
    look: Callable[[Settings], Finding | Sequence[Finding]]
    remedy: str
    needs: tuple[str, ...] = ()
