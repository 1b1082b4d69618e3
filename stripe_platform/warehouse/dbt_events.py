"""What dbt reports, with the rows of each model counted."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import duckdb
from dagster_dbt import DbtCliInvocation
from dagster_dbt.errors import DagsterDbtCliRuntimeError

from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path


def events_with_row_counts(
    invocation: DbtCliInvocation, keys_by_output_name: Mapping[str, dg.AssetKey], settings: Settings
) -> Iterator[Any]:
    """The invocation's events once dbt has ended, then its failure if it has one.

    dagster-dbt's `fetch_row_counts` waits for dbt in a busy loop, which takes a core from it, and counts no views.
    """
    events, failure = [], None
    try:
        for event in invocation.stream():
            events.append(event)
    except DagsterDbtCliRuntimeError as error:
        failure = error
    models = {
        event.output_name: keys_by_output_name[event.output_name].path[-1]
        for event in events
        if isinstance(event, dg.Output)
    }
    counts = _row_counts(settings, list(models.values()))
    for event in events:
        if isinstance(event, dg.Output):
            rows = counts[models[event.output_name]]
            yield event.with_metadata({**event.metadata, "dagster/row_count": rows})
        else:
            yield event
    if failure:
        raise failure


def _row_counts(settings: Settings, models: list[str]) -> dict[str, int]:
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
