"""The columns of the models and their sources as the build on DuckDB holds them."""

import duckdb

from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path

# (database, schema, relation, column, type)
StoredColumn = tuple[str, str, str, str, str]


def stored_columns(settings: Settings) -> list[StoredColumn]:
    """Every column of every table and view of the build, in the engine's letter case and always in one order."""
    with duckdb.connect(str(build_path(settings)), read_only=True) as connection:
        return connection.execute(
            "select database_name, schema_name, table_name, column_name, data_type from duckdb_columns() "
            "where not internal order by all"
        ).fetchall()
