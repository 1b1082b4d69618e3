"""Rows whose value of a new column never came: they had it from the default with which the column was added.

PostgreSQL writes no change for them: in every store the value is null until the row changes or a snapshot reads it.
"""

from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import GAP, ChangeLog, parquet_files
from stripe_platform.raw.integrity import count_changes
from stripe_platform.settings import Settings


def rows_without_default(settings: Settings, table: str) -> dict[str, int]:
    """{column: rows that may have a value no change told}, of columns that were followed later than the log was begun.

    Counted are the rows, not deleted, whose last change is from before the column was first seen and does not hold it.
    Of a column that was given its default after it was added, that is more than need be.
    """
    log = ChangeLog.existing(settings, table)
    followed = {} if log is None else log.followed
    counted = {
        name: _rows_without(settings, table, name, column.filled_before)
        for name, column in followed.items()
        if column.filled_before is not None
    }
    return {name: rows for name, rows in counted.items() if rows}


def _rows_without(settings: Settings, table: str, column: str, filled_before: str) -> int:
    key = ", ".join(f'"{name}"' for name in TABLES_BY_NAME[table].key)
    return count_changes(
        settings,
        parquet_files(settings, table),
        f"""
        -- No file has a column that no change has carried yet.
        WITH known AS (SELECT * FROM changes UNION ALL BY NAME SELECT NULL AS "{column}" WHERE false),
        gaps AS (SELECT _partition, max(_offset) AS gap FROM known WHERE _op = '{GAP}' GROUP BY _partition),
        truncated AS (SELECT max(_committed_at) AS truncated_at FROM known WHERE _op = 't'),
        latest AS (
            SELECT
                _partition,
                max(_offset) AS _offset,
                arg_max(_op, _offset) AS _op,
                arg_max(_committed_at, _offset) AS _committed_at,
                arg_max("{column}" IS NULL AND NOT list_contains(_unchanged, '{column}'), _offset) AS is_without
            FROM known WHERE _op NOT IN ('{GAP}', 't') GROUP BY _partition, {key}
        )
        SELECT count(*) FROM latest LEFT JOIN gaps USING (_partition) CROSS JOIN truncated
        WHERE is_without AND _op <> 'd' AND _committed_at < TIMESTAMPTZ '{filled_before}'
            AND _offset > coalesce(gap, -1) AND (truncated_at IS NULL OR _committed_at > truncated_at)
        """,
        columns=("*",),
    )
