"""A payments data platform as one Dagster asset graph."""
