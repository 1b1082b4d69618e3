"""What the platform asks of the engine that holds the marts: which one it is, is decided here and nowhere else."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from stripe_platform.cdc.cut import Cut
from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse import answer as duckdb_answer
from stripe_platform.warehouse import build as duckdb
from stripe_platform.warehouse import built as duckdb_built
from stripe_platform.warehouse.answer import Answer, Reader
from stripe_platform.warehouse.build_rules import Build, Publication
from stripe_platform.warehouse.built import StoredColumn
from stripe_platform.warehouse.snowflake import build as snowflake
from stripe_platform.warehouse.snowflake import query as snowflake_query


@dataclass(frozen=True)
class Engine:
    """The steps of a build, each with the promises of its namesake in `warehouse.build`."""

    prepare_build: Callable[[Settings, Cut], Build]
    models_are_others: Callable[[Settings], bool]
    mark_tested: Callable[[Settings, Build], None]
    publish: Callable[[Settings], Publication]
    published_cut: Callable[[Settings], Cut | None]
    row_counts: Callable[[Settings, list[str]], dict[str, int]]
    stored_columns: Callable[[Settings], list[StoredColumn]]
    answer: Callable[[Settings, str], AbstractContextManager[Answer]]
    reader: Callable[[Settings, timedelta], AbstractContextManager[Reader]]
    # How old published marts are at least before the next build.
    min_age: timedelta
    # Whether only to ask which cut is published costs money: then nobody asks sooner than a build could follow.
    asking_costs: bool
    # Whether staging and the change log are published with the marts, as they were when those were built.
    publishes_staging: bool


ENGINES: Mapping[WarehouseEngine, Engine] = {
    WarehouseEngine.DUCKDB: Engine(
        duckdb.prepare_build,
        duckdb.models_are_others,
        duckdb.mark_tested,
        duckdb.publish,
        duckdb.published_cut,
        duckdb_built.row_counts,
        duckdb_built.stored_columns,
        duckdb_answer.answer,
        duckdb_answer.reader,
        # A build costs tens of seconds of both cores: fresh enough for people, and it leaves the machine time.
        min_age=timedelta(seconds=60),
        asking_costs=False,
        publishes_staging=True,
    ),
    WarehouseEngine.SNOWFLAKE: Engine(
        snowflake.prepare_build,
        snowflake.models_are_others,
        snowflake.mark_tested,
        snowflake.publish,
        snowflake.published_cut,
        snowflake_query.row_counts,
        snowflake_query.stored_columns,
        snowflake_query.answer,
        snowflake_query.reader,
        # Its warehouse is paid for as long as it runs: it sleeps between builds (deploy/snowflake/02_warehouses.sql).
        min_age=timedelta(minutes=30),
        asking_costs=True,
        publishes_staging=False,
    ),
}


def engine_of(settings: Settings) -> Engine:
    """The engine that `WAREHOUSE` names."""
    return ENGINES[settings.warehouse]


def published_cut(settings: Settings) -> Cut | None:
    """The cut of the published marts, wherever they are; None when nothing has been published."""
    return engine_of(settings).published_cut(settings)
