"""The guard of one source row: how far its document has taken it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stripe_platform.features.changes import Change
from stripe_platform.features.projection import Unprojectable

Position = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Late(Change):
    """A change that is applied so long after it was read that its row's delete marker may have left meanwhile."""


def is_stale(position: Position | None, change: Change) -> bool:
    """Whether the row has this change, or a later one, behind it; None: nothing of the row has come, or is left.

    Within a partition the offset is the order. Only between two streamed changes the LSN counts too: one that is not
    higher is an old change, or the same one, that was written into the topic again. `Unprojectable` for a late change
    of which nobody can say: its row might be one that was deleted.
    """
    if position is None:
        if isinstance(change, Late) and change.op != "d":
            raise Unprojectable((change, _unknown(change.table)))
        return False
    if change.offset <= position["o"]:
        return True
    highest = position["l"]
    return change.lsn is not None and highest is not None and change.lsn <= highest


def _unknown(table: str) -> str:
    return (
        "nothing is stored of its row, which may have been deleted so long ago that the marker has left: "
        f"`stripe-platform rebuild {table}`, which finds every delete in the raw change log, then replay it"
    )


def furthest(one: Position | None, other: Position | None) -> Position | None:
    """The later of two positions of a row."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda position: position["o"])


def advanced(position: Position | None, change: Change) -> dict[str, Any]:
    """The position after a change that is not stale: `o` its offset, `l` the highest streamed LSN, `d` deleted."""
    lsn = change.lsn
    if lsn is None and position is not None:
        lsn = position["l"]
    return {"o": change.offset, "l": lsn, "d": change.op == "d"}
