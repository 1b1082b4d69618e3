"""What a sink's process tells the one that watches it: a line of JSON for each piece of work."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Progress:
    """Work that is committed: changes by table, how many were stale, records set aside, and the seconds it took."""

    changes: Mapping[str, int]
    stale: int = 0
    dead_letters: int = 0
    seconds: float = 0.0

    def to_line(self) -> str:
        """One line, without its end."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> "Progress | None":
        """What `to_line` wrote; None for any other line."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError):
            return None
