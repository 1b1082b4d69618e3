"""The analytical store: dbt on DuckDB, its published file, and queries on it."""
