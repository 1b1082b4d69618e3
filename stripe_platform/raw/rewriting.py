"""Who may replace files of a log: one at a time, for Delta itself does not see that two of them did."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from stripe_platform.errors import StripePlatformError

WAIT = timedelta(minutes=5)


class LogIsRewritten(StripePlatformError):
    """Another process has been replacing the files of the log for long."""

    def __init__(self, folder: Path, waited: timedelta) -> None:
        super().__init__(
            f"the files of {folder} have been replaced by another process for {waited}: wait for it "
            "(lake_maintenance, or a change of the table's columns) to end and run again"
        )


@contextmanager
def only_rewriter(folder: Path, *, wait: timedelta = WAIT) -> Iterator[None]:
    """Be the only one who replaces files of the Delta table in the folder; `LogIsRewritten` after `wait`.

    Within, open the table anew. delta-rs refuses neither a compaction nor an overwrite that was begun on a version
    before another compaction: both copies of the rows would stay. Appends, deletes and readers need no lock.
    """
    locks = folder.parent.with_name("locks")
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{folder.name}.lock", timeout=wait.total_seconds()):
            yield
    except Timeout as error:
        raise LogIsRewritten(folder, wait) from error
