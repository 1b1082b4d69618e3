"""Which columns each column of a model is made of, read from the SQL that dbt has run.

dbt names the models that a model reads, sqlglot the columns. dagster-dbt would do the same, model by model while dbt
runs, in a busy loop beside it (see `dbt_events`). Here it is done once dbt has ended, and kept until the project or a
column changes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliInvocation
from sqlglot import MappingSchema, exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage

from stripe_platform.settings import Settings
from stripe_platform.warehouse.built import StoredColumn
from stripe_platform.warehouse.dbt_events import kind_of
from stripe_platform.warehouse.engines import engine_of
from stripe_platform.warehouse.model_code import digest_of_models
from stripe_platform.warehouse.translator import asset_key

# {column: the (unique id, column) that it is made of}
Lineage = dict[str, list[tuple[str, str]]]


def events_with_column_lineage(
    events: Iterable[Any],
    invocation: DbtCliInvocation,
    keys_by_output_name: Mapping[str, dg.AssetKey],
    settings: Settings,
) -> Iterator[Any]:
    """The events of an invocation that has ended, each model's with the lineage of its columns.

    Where the lineage cannot be found, the log says so and the events come without it.
    """
    nodes = {**invocation.manifest["nodes"], **invocation.manifest["sources"]}
    keys = {unique_id: dg.AssetKey(asset_key(node)) for unique_id, node in nodes.items() if is_relation(node)}
    lineages: dict[dg.AssetKey, Lineage] | None = None
    for event in events:
        if not isinstance(event, dg.Output):
            yield event
            continue
        if lineages is None:
            found = _lineage_or_none(settings, invocation)
            lineages = {keys[unique_id]: columns for unique_id, columns in found.items()}
        columns = lineages.get(keys_by_output_name[event.output_name], {})
        made_of = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(asset_key=keys[unique_id], column_name=name) for unique_id, name in sources]
                for column, sources in columns.items()
            }
        )
        yield event.with_metadata({**event.metadata, "dagster/column_lineage": made_of})


def _lineage_or_none(settings: Settings, invocation: DbtCliInvocation) -> dict[str, Lineage]:
    try:
        return lineage_of_run(settings, invocation.manifest, invocation.target_path)
    # Whatever it is: a tested build is not given up for what is shown beside it.
    except Exception as error:
        dg.get_dagster_logger().warning(f"no lineage of columns is shown for this build: {kind_of(error)}")
        return {}


def lineage_of_run(settings: Settings, manifest: Mapping[str, Any], target: Path) -> dict[str, Lineage]:
    """{unique id of a model: its lineage} of the models whose SQL is in a run's target folder.

    A column of no other column (a literal, a count of rows) is made of none. A model whose SQL sqlglot does not
    understand is left out.
    """
    stored = engine_of(settings).stored_columns(settings)
    kept = settings.home / "dbt" / "column_lineage.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    made_from = hashlib.sha256(json.dumps([digest_of_models(), version("sqlglot"), stored]).encode()).hexdigest()
    known = _read(kept, made_from)
    compiled = {
        unique_id: target / "compiled" / node["package_name"] / node["original_file_path"]
        for unique_id, node in manifest["nodes"].items()
        if node["resource_type"] == "model"
    }
    compiled = {unique_id: path for unique_id, path in compiled.items() if path.exists()}
    if new := compiled.keys() - known.keys():
        known |= _lineages(manifest, {unique_id: compiled[unique_id].read_text() for unique_id in new}, stored)
        _write(kept, made_from, known)
    return {unique_id: known[unique_id] for unique_id in compiled if unique_id in known}


def is_relation(node: Mapping[str, Any]) -> bool:
    """Whether a node of dbt's manifest is a table or a view."""
    return node["resource_type"] in {"model", "source"}


def columns_read(sql: str, schema: MappingSchema, dialect: str) -> dict[str, set[tuple[str, str, str]]]:
    """{column of a query: the (schema, relation, column) that it is made of}; `SqlglotError` on unknown SQL."""
    # Without trimming, which would copy the whole query for every column.
    roots = lineage(None, sql, schema, dialect=dialect, trim_selects=False)
    return {column.lower(): set(_leaves(root, dialect)) for column, root in roots.items()}


def _leaves(root: Node, dialect: str) -> Iterator[tuple[str, str, str]]:
    """The columns of tables below a node; nodes are shared, so each is looked at once."""
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        if isinstance(table := node.expression, exp.Table):
            yield table.db.lower(), table.name.lower(), exp.to_column(node.name, dialect=dialect).name.lower()
        for child in node.downstream:
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


def _lineages(
    manifest: Mapping[str, Any], compiled: Mapping[str, str], stored: Iterable[StoredColumn]
) -> dict[str, Lineage]:
    dialect = manifest["metadata"]["adapter_type"]
    schema = _schema(stored, dialect)
    nodes = {**manifest["nodes"], **manifest["sources"]}
    owners = {
        (node["schema"].lower(), (node.get("alias") or node["identifier"]).lower()): unique_id
        for unique_id, node in nodes.items()
        if is_relation(node)
    }
    # A feed has the rows of the state that it tells of (dbt/macros/change_feed.sql).
    owners |= {
        (layer, name.replace("state_", "changes_", 1)): owner
        for (layer, name), owner in owners.items()
        if name.startswith("state_")
    }
    found: dict[str, Lineage] = {}
    for unique_id, sql in compiled.items():
        try:
            columns = columns_read(sql, schema, dialect)
        except SqlglotError:
            continue
        touching = _only_touching(unique_id, nodes)
        found[unique_id] = {}
        for column, sources in columns.items():
            made_of = {
                # An incremental model reads itself too: that says nothing of where a value came from first.
                (owner, name)
                for layer, relation, name in sources
                if (owner := owners.get((layer, relation))) and owner != unique_id
            }
            values = {(owner, name) for owner, name in made_of if owner not in touching}
            found[unique_id][column] = sorted(values or made_of)
    return found


def _only_touching(unique_id: str, nodes: Mapping[str, Any]) -> set[str]:
    """What an incremental build of a model reads, and a whole one does not, to know which rows to compute again."""
    if nodes[unique_id]["config"].get("incremental_strategy") != "touched":
        return set()
    states = {parent for parent, node in nodes.items() if node["fqn"][1:3] == ["staging", "state"]}
    return states | {parent for parent, node in nodes.items() if node["resource_type"] == "source"}


def _schema(stored: Iterable[StoredColumn], dialect: str) -> MappingSchema:
    relations: dict[tuple[str, str, str], dict[str, str]] = {}
    for database, layer, relation, column, kind in stored:
        relations.setdefault((database, layer, relation), {})[column] = kind
    schema = MappingSchema(dialect=dialect)
    for (database, layer, relation), columns in relations.items():
        table = exp.table_(relation, layer, database, quoted=True)
        schema.add_table(table, columns, dialect=dialect)
    return schema


def _read(kept: Path, made_from: str) -> dict[str, Lineage]:
    """What is known of models, as long as it was found in the same project and among the same columns."""
    if not kept.exists():
        return {}
    held = json.loads(kept.read_text())
    if held["made_from"] != made_from:
        return {}
    return {
        model: {column: [(owner, name) for owner, name in sources] for column, sources in columns.items()}
        for model, columns in held["models"].items()
    }


def _write(kept: Path, made_from: str, known: Mapping[str, Lineage]) -> None:
    written = kept.with_suffix(".written")
    written.write_text(json.dumps({"made_from": made_from, "models": known}))
    written.replace(kept)
