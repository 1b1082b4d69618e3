"""The rows of the models that dbt has built on DuckDB."""

import duckdb

from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path


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
