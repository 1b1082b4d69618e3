"""What dbt reports, with the rows of each model counted and the cut named that it was built on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliInvocation
from dagster_dbt.errors import DagsterDbtCliRuntimeError

from stripe_platform.cdc.cut import Cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.warehouse.engines import engine_of


def events_with_row_counts(
    invocation: DbtCliInvocation, keys_by_output_name: Mapping[str, dg.AssetKey], settings: Settings
) -> Iterator[Any]:
    """The invocation's events once dbt has ended, then its failure if it has one.

    Where rows cannot be counted, the log says so and the events come without them.

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
    counts = _counts_or_none(settings, list(models.values()))
    for event in events:
        if isinstance(event, dg.Output) and (rows := counts.get(models[event.output_name])) is not None:
            yield event.with_metadata({**event.metadata, "dagster/row_count": rows})
        else:
            yield event
    if failure:
        raise failure


def events_with_cut(events: Iterable[Any], cut: Cut) -> Iterator[Any]:
    """The events, each model's with the cut that it was built on."""
    for event in events:
        yield event.with_metadata({**event.metadata, **cut_metadata(cut)}) if isinstance(event, dg.Output) else event


def cut_metadata(cut: Cut) -> dict[str, Any]:
    """How an asset names the cut that it holds."""
    return {"cut": cut.id, "cut_made_at": dg.MetadataValue.timestamp(cut.made_at)}


def _counts_or_none(settings: Settings, models: list[str]) -> dict[str, int]:
    try:
        return engine_of(settings).row_counts(settings, models)
    # Whatever it is: a tested build is not given up, nor dbt's own failure hidden, for what is shown beside it.
    except Exception as error:
        dg.get_dagster_logger().warning(f"no numbers of rows are shown for this build: {kind_of(error)}")
        return {}


def kind_of(error: Exception) -> str:
    """What may be logged of an error: an engine's own words may quote values, the platform's do not."""
    return str(error) if isinstance(error, StripePlatformError) else type(error).__name__
