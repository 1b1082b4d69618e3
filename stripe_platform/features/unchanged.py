"""Large values that an event leaves out because they did not change."""

from collections.abc import Mapping
from typing import Any

from stripe_platform.features.changes import Change
from stripe_platform.features.projection import Unprojectable


def with_unchanged(change: Change, stored: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The row of a change with the stored values in the place of those that it leaves out.

    `Unprojectable` when nothing is stored to keep: null in its place would be a wrong value.
    """
    if not change.unchanged:
        return change.row
    if stored is None or (missing := [name for name in change.unchanged if name not in stored]):
        named = change.unchanged if stored is None else missing
        raise Unprojectable((change, f"no earlier value is stored of the unchanged column {', '.join(named)}"))
    return {**change.row, **{name: stored[name] for name in change.unchanged}}
