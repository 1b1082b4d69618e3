"""What dbt has built on DuckDB."""

import duckdb

from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path

# (database, schema, relation, column, type)
StoredColumn = tuple[str, str, str, str, str]


def stored_columns(settings: Settings) -> list[StoredColumn]:
    """Every column of every table and view of the build."""
    with duckdb.connect(str(build_path(settings)), read_only=True) as connection:
        return connection.execute(
            "select database_name, schema_name, table_name, column_name, data_type from duckdb_columns() "
            "where not internal order by all"
        ).fetchall()


def row_counts(settings: Settings, models: list[str]) -> dict[str, int]:
    """{model: rows}; a model's name is that of its one table or view."""
    if not models:
        return {}
    with duckdb.connect(str(build_path(settings)), read_only=True) as connection:
        relations = connection.execute(
            "select table_schema, table_name from information_schema.tables "
            "where table_schema not in ('raw', 'meta') and list_contains($models, table_name)",
            {"models": models},
        ).fetchall()
        counts = " union all ".join(
            f"select '{name}' as model, count(*) as row_count from {schema}.{name}" for schema, name in relations
        )
        return dict(connection.execute(counts).fetchall())
