"""dbt's documentation, made of a published warehouse as people make it."""

import json
import os
import subprocess
from pathlib import Path

import duckdb
import pytest

from stripe_platform.local.environment import environment
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path, publish
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.docs import DocsNotMade, write_docs
from stripe_platform.warehouse.project import DBT
from stripe_platform.warehouse.published import NoWarehouse, published_connection, published_path
from stripe_platform.warehouse.query import query_rows
from stripe_platform_tests.integration.test_warehouse import Lake, build, write_payments
from stripe_platform_tests.integration.test_warehouse_checks import write_a_row_of_every_other_table

COMMAND = DBT.with_name("stripe-platform")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a stack that has published its marts."""
    lake = Lake(tmp_path_factory.mktemp("documented"))
    write_payments(lake)
    write_a_row_of_every_other_table(lake)
    build(lake.settings, lake.cut(), "--resource-type", "model")
    publish(lake.settings)
    return lake.settings


def test_the_command_prints_the_path_of_one_file_that_needs_no_other_while_a_builder_and_readers_work(
    published: Settings,
) -> None:
    with (
        builder(published),
        duckdb.connect(str(build_path(published))),
        published_connection(published),
    ):
        run = subprocess.run(
            [COMMAND, "docs"], env=os.environ | environment(published), capture_output=True, text=True, check=True
        )
    page = Path(run.stdout.strip()).read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    # The place of what the page would else ask its server for.
    assert "MANIFEST.JSON INLINE DATA" not in page
    assert "Fees taken off, minor units." in page


def test_every_model_is_documented_with_its_types_as_published(published: Settings) -> None:
    folder = write_docs(published).parent
    catalog = json.loads((folder / "catalog.json").read_text())["nodes"]
    models = [
        node
        for node in json.loads((folder / "manifest.json").read_text())["nodes"].values()
        if node["resource_type"] == "model"
    ]
    assert {node["unique_id"] for node in models} == set(catalog)
    assert catalog["model.stripe_platform.fact_charges"]["columns"]["amount"]["type"] == "BIGINT"
    assert not (folder / "warehouse.duckdb").exists()


def test_without_a_published_warehouse_the_error_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NoWarehouse, match="stripe-platform run oltp_to_warehouse"):
        write_docs(Settings(stripe_platform_home=tmp_path))


def test_a_published_file_that_dbt_cannot_read_is_said_in_its_words(tmp_path: Path) -> None:
    settings = Settings(stripe_platform_home=tmp_path)
    settings.warehouse_folder.mkdir(parents=True)
    published_path(settings).write_text("no database")
    with pytest.raises(DocsNotMade, match="not a valid DuckDB database file"):
        write_docs(settings)


def test_descriptions_stand_in_the_published_file_for_whoever_reads_it(published: Settings) -> None:
    manifest = json.loads((published.home / "target" / "manifest.json").read_text())
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    told = {(node["schema"], node["name"], None): node["description"] for node in models}
    told |= {
        (node["schema"], node["name"], column["name"]): column["description"]
        for node in models
        for column in node["columns"].values()
    }
    stored = {
        (schema, relation, column): comment
        for schema, relation, column, comment in query_rows(
            published,
            """
            select schema_name, table_name, null, comment from duckdb_tables()
            union all
            select schema_name, view_name, null, comment from duckdb_views()
            union all
            select schema_name, table_name, column_name, comment from duckdb_columns()
            """,
        )
    }
    assert {place for place, description in told.items() if stored[place] != description} == set()
