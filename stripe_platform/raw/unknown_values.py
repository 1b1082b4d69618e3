"""Rows of which a value never came: updated without it while a snapshot read them.

An update sends no large value that it did not change. When it is committed while an incremental snapshot reads the
row's chunk, the connector drops the row that it read, for the update is newer; and where nothing earlier in the log
holds the value, it is unknown.
"""

from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import GAP, parquet_files
from stripe_platform.raw.integrity import count_changes
from stripe_platform.settings import Settings


def rows_with_unknown_values(settings: Settings, table: str) -> int:
    """Number of rows, not deleted, with a column that every change left out since their last delete or gap."""
    key = ", ".join(f'"{name}"' for name in TABLES_BY_NAME[table].key)
    return count_changes(
        settings,
        parquet_files(settings, table),
        f"""
        WITH suspect AS (SELECT DISTINCT {key} FROM changes WHERE len(_unchanged) > 0),
        gaps AS (SELECT _partition, max(_offset) AS gap FROM changes WHERE _op = '{GAP}' GROUP BY _partition),
        history AS (
            SELECT *, max(CASE WHEN _op = 'd' THEN _offset END) OVER (PARTITION BY {key}) AS deleted
            FROM changes SEMI JOIN suspect USING ({key})
        ),
        living AS (
            SELECT history.* FROM history LEFT JOIN gaps USING (_partition)
            WHERE _op IN ('c', 'u', 'r') AND _offset > greatest(coalesce(deleted, -1), coalesce(gap, -1))
        ),
        changes_of AS (SELECT {key}, count(*) AS made FROM living GROUP BY ALL),
        missing AS (
            SELECT {key}, absent, count(*) AS without
            FROM (SELECT {key}, unnest(_unchanged) AS absent FROM living) GROUP BY ALL
        )
        SELECT count(*) FROM (
            SELECT DISTINCT {key} FROM missing INNER JOIN changes_of USING ({key}) WHERE without = made
        )
        """,
        columns=(key, "_offset", "_op", "_partition", "_unchanged"),
    )
