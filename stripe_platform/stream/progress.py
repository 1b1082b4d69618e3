"""What a sink's process tells the one that watches it: a line of JSON for each piece of work."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Work that is committed: changes by table, how many were stale, records set aside, and the seconds it took.

    `written` is {collection of MongoDB: documents}, of those that changed.
    """

    changes: Mapping[str, int]
    stale: int = 0
    dead_letters: int = 0
    seconds: float = 0.0
    written: Mapping[str, int] = field(default_factory=dict)

    def to_line(self) -> str:
        """One line, without its end."""
        # Not by `asdict`, which makes something else of a Counter.
        return json.dumps(vars(self))

    @classmethod
    def from_line(cls, line: str) -> "Progress | None":
        """What `to_line` wrote; None for any other line."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError):
            return None
