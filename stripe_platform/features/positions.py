"""The guard of one source row: how far its document has taken it."""

from collections.abc import Mapping
from typing import Any

from stripe_platform.features.changes import Change

Position = Mapping[str, Any]


def is_stale(position: Position | None, change: Change) -> bool:
    """Whether the row has this change, or a later one, behind it; None: nothing of the row has come yet.

    Within a partition the offset is the order. Only between two streamed changes the LSN counts too: one that is not
    higher is an old change, or the same one, that was written into the topic again.
    """
    if position is None:
        return False
    if change.offset <= position["o"]:
        return True
    highest = position["l"]
    return change.lsn is not None and highest is not None and change.lsn <= highest


def advanced(position: Position | None, change: Change) -> dict[str, Any]:
    """The position after a change that is not stale: `o` its offset, `l` the highest streamed LSN, `d` deleted."""
    lsn = change.lsn
    if lsn is None and position is not None:
        lsn = position["l"]
    return {"o": change.offset, "l": lsn, "d": change.op == "d"}
