"""The dbt models and their publication, as assets."""

import json
import re
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets
from pydantic import Field, field_validator

from stripe_platform.settings import Settings, load_settings
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.column_lineage import events_with_column_lineage
from stripe_platform.warehouse.cuts import cut_to_build_on
from stripe_platform.warehouse.dbt_events import cut_metadata, events_with_cut, events_with_row_counts
from stripe_platform.warehouse.engines import engine_of
from stripe_platform.warehouse.project import dbt_environment, dbt_manifest, new_run_target
from stripe_platform.warehouse.translator import FRESH, WarehouseTranslator

MONTH = r"[0-9]{4}-(0[1-9]|1[0-2])"


class BuildConfig(dg.Config):
    """What a build computes again besides what has changed: the rows of one month, or all."""

    month: str | None = Field(
        default=None,
        description="Compute the rows of this UTC month again, e.g. 2026-01, whether they changed or not.",
    )
    full_refresh: bool = Field(default=False, description="Build the models anew, whole, from the change log.")

    @field_validator("month")
    @classmethod
    def _is_a_month(cls, month: str | None) -> str | None:
        if month is not None and not re.fullmatch(MONTH, month):
            raise ValueError("not a month: give its year and number, as in 2026-01")
        return month


PUBLISHED_KEY = dg.AssetKey(["warehouse", "published_marts"])


@dbt_assets(
    # The graph is in the manifest, so loading it needs one; it is parsed anew only when the project has changed.
    manifest=dbt_manifest(load_settings()),
    dagster_dbt_translator=WarehouseTranslator(),
    # No pool: the builder's file lock keeps writers of the build file apart, and a killed run does not keep it.
)
def warehouse_models(
    context: dg.AssetExecutionContext,
    config: BuildConfig,
    dbt: DbtCliResource,
    settings: dg.ResourceParam[Settings],
) -> Iterator[Any]:
    """Staging and marts on the cut of this run, tested; a failing test leaves the published marts as they are."""
    engine = engine_of(settings)
    with builder(settings), dbt_environment(settings):
        cut = cut_to_build_on(settings, context.run.run_id)
        build = engine.prepare_build(settings, cut)
        if build.cut != cut:
            context.log.info(f"another run has built on the newer cut {build.cut.id}: building on it, not on {cut.id}")
        target = new_run_target(settings, context.run.run_id)
        others = engine.models_are_others(settings)
        if others:
            context.log.info("the models are not those of the last tested build: what they made is built anew, whole")
        invocation = dbt.cli(build_arguments(config, whole=others), context=context, target_path=target)
        keys = context.assets_def.keys_by_output_name
        counted = events_with_row_counts(invocation, keys, settings)
        on_cut = events_with_cut(counted, build.cut)
        yield from events_with_column_lineage(on_cut, invocation, keys, settings)
        if not context.assets_def.is_subset:
            engine.mark_tested(settings, build)


def build_arguments(config: BuildConfig, *, whole: bool) -> list[str]:
    """dbt's command line of a build; `whole` where it must not go on from what is there."""
    # Unit tests are of the models' code, on rows of their own: the tests of this repository run them.
    arguments = ["build", "--exclude-resource-type", "unit_test"]
    if whole or config.full_refresh:
        arguments.append("--full-refresh")
    if config.month:
        arguments += ["--vars", json.dumps({"month": f"{config.month}-01"})]
    return arguments


@dg.asset(
    key=PUBLISHED_KEY,
    deps=[key for key in sorted(warehouse_models.keys) if key.path[0] == "marts"],
    group_name="marts",
    kinds={str(load_settings().warehouse)},
    owners=["team:warehouse"],
    freshness_policy=FRESH,
)
def published_marts(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """What every reader opens: the build whose tests have passed, put in place in one step."""
    publication = engine_of(settings).publish(settings)
    return dg.MaterializeResult(metadata={**cut_metadata(publication.cut), "bytes": publication.size})
