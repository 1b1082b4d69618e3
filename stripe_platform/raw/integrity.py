"""What must hold of a raw change log, counted over its Parquet files in bounded memory."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from stripe_platform.raw.change_log import next_offsets, parquet_files
from stripe_platform.settings import Settings

MEMORY_LIMIT = "256MB"


def offsets_stored_twice(settings: Settings, table: str) -> int:
    """Number of (partition, offset) pairs that more than one row carries."""
    return count_changes(
        settings,
        parquet_files(settings, table),
        "SELECT count(*) FROM (SELECT 1 FROM changes GROUP BY _partition, _offset HAVING count(*) > 1)",
    )


def rows_beyond_offsets(settings: Settings, table: str) -> int:
    """Number of rows at or past the stored next offset of their partition, or of a partition without one."""
    # Files first: what is appended in between moves the offsets up, never down.
    files = parquet_files(settings, table)
    stored = ", ".join(f"({partition}, {offset})" for partition, offset in next_offsets(settings, table).items())
    return count_changes(
        settings,
        files,
        f"SELECT count(*) FROM changes LEFT JOIN (VALUES {stored}) AS stored (_partition, next) "
        "USING (_partition) WHERE next IS NULL OR _offset >= next",
    )


def count_changes(
    settings: Settings, files: Sequence[str], question: str, columns: Sequence[str] = ("_partition", "_offset")
) -> int:
    """The one number that the question, a query of the relation `changes`, answers; 0 when there is no file."""
    if not files:
        return 0
    spill = settings.home / "tmp" / "duckdb"
    Path(spill).mkdir(parents=True, exist_ok=True)
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(spill)}) as database:
        # By name: a file written before a column was added lacks it.
        database.read_parquet(list(files), union_by_name=True).select(", ".join(columns)).create_view("changes")
        row = database.execute(question).fetchone()
    return int(row[0]) if row else 0
