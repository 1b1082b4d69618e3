"""Progress of snapshots for logs that are kept: some lines per table, however many chunks it has."""

from collections.abc import Callable

from stripe_platform.cdc.snapshot import SnapshotProgress

# A line for every twentieth part of a table, as PostgreSQL estimates it.
PARTS = 20


def sparingly(tell: Callable[[SnapshotProgress], None]) -> Callable[[SnapshotProgress], None]:
    """Pass on the first progress of a table, its end, and at most some twenty in between.

    Past the estimate, or without one, it is told when the rows have doubled since the last time.
    """
    due: dict[str, int] = {}

    def tell_if_due(progress: SnapshotProgress) -> None:
        if not progress.is_complete and progress.rows < due.get(progress.table, 0):
            return
        estimate = progress.estimated_rows or 0
        step = max(1, estimate // PARTS) if progress.rows < estimate else progress.rows
        due[progress.table] = progress.rows + max(1, step)
        tell(progress)

    return tell_if_due


def described(progress: SnapshotProgress) -> str:
    """One line for a person."""
    if progress.is_complete:
        return f"{progress.table}: complete, {progress.rows:,} rows"
    if not progress.estimated_rows:
        return f"{progress.table}: {progress.rows:,} rows"
    share = min(99, 100 * progress.rows // progress.estimated_rows)
    return f"{progress.table}: {progress.rows:,} of about {progress.estimated_rows:,} rows ({share} %)"
