"""The table of all features: `python -m stripe_platform.features.catalogue` prints what docs/features.md ends with."""

import sys

from stripe_platform.features.definitions import FEATURES, Feature
from stripe_platform.features.windows import DAY

_COLUMNS = ("feature", "entity", "window", "aggregation", "unit", "meaning", "known by", "owner")


def markdown() -> str:
    """A Markdown table, one line a feature, in the order of the definitions."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_row, FEATURES)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(feature: Feature) -> tuple[str, ...]:
    window, aggregation = feature.window, feature.aggregation
    delay = f", {window.delay // DAY} d ago" if window.delay else ""
    return (
        f"`{feature.name}`",
        feature.entity,
        window.name + delay,
        aggregation,
        aggregation.unit,
        aggregation.meaning,
        f"`{feature.known_time}`",
        feature.owner,
    )


if __name__ == "__main__":
    sys.stdout.write(markdown())
