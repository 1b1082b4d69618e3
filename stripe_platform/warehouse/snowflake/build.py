"""The build on Snowflake, and its publication as the marts that people read.

dbt builds the marts in `<schema>_build`; people read `<schema>`. Once the tests have passed, a clone of the first (no
row is copied) changes its name with the second, in one statement. A failing test, or a crash, leaves the last
published marts. As on DuckDB, whoever builds or publishes holds the lock of this host.
"""

from datetime import timedelta
from typing import Any, NamedTuple

from snowflake.connector import SnowflakeConnection

from stripe_platform.cdc.cut import Cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build_rules import (
    Build,
    Publication,
    builder,
    change_logs_of,
    newer_cut,
    recreated_tables,
    require_all_up_to,
)
from stripe_platform.warehouse.model_code import digest_of_models
from stripe_platform.warehouse.snowflake.connection import SnowflakeRefused, connected, run, transaction
from stripe_platform.warehouse.snowflake.load import load_change_log, require_topics

NO_SUCH_OBJECT = 2003
# What the models know of a build, as on DuckDB: one row, there from the first moment on, for each build takes the place
# of the one before, and of two hosts that try it one must find it taken.
BUILD = (
    "create table meta.build as select '' as cut_id, cast(null as timestamp_tz) as made_at, cast(null as text) as cut, "
    "false as is_tested, cast(0 as number(38,0)) as number, cast(null as text) as models, "
    "cast(null as text) as begun_with"
)
# Which build each model holds.
TABLES = (
    "create table if not exists meta.model_builds (model text, number number(38,0))",
    "create table if not exists meta.whole_builds (model text, number number(38,0))",
)


class _Held(NamedTuple):
    """The row of `meta.build`: `models` is the digest of the code that the last tested build was made by."""

    number: int
    cut: Cut | None
    is_tested: bool
    models: str | None


class AnotherHostBuilds(StripePlatformError):
    """Another host began a build before this one's was tested and published."""

    def __init__(self) -> None:
        super().__init__(
            "another host prepared a build on Snowflake at the same time, so this one stops and publishes nothing: "
            "let one host alone build"
        )


class NothingTested(StripePlatformError):
    """Snowflake holds no build that may be published."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"{schema}_build on Snowflake has no build of all models whose tests passed, so nothing was published and "
            f"{schema} stays: see the failed dbt tests in the run, then `stripe-platform run oltp_to_warehouse`"
        )


def prepare_build(settings: Settings, cut: Cut) -> Build:
    """Load the change log up to a cut and never beyond; the promises of `warehouse.build.prepare_build`.

    Beside those, `LoadedFromAnotherTopic` when Snowflake holds changes of a topic that is no more, and
    `AnotherHostBuilds` when one began a build in the same moment.
    """
    tables = change_logs_of(settings, cut)
    with connected(settings, settings.snowflake_loader_role) as connection:
        for statement in TABLES:
            run(connection, "make the tables of builds", statement)
        require_topics(connection, tables)
        held = _held_build(connection) or _first_held(connection)
        # Of a topic that is another one now nothing is loaded any more: offsets of the held cut say nothing of it.
        if held.cut and not recreated_tables(held.cut, cut):
            cut = newer_cut(held.cut, cut)
        require_all_up_to(cut, tables)
        # Before the load: killed in the midst of it, the next run goes on with this cut or a later one.
        build = _begin(connection, held, cut)
    load_change_log(settings, tables, cut)
    return build


def models_are_others(settings: Settings) -> bool:
    """Whether the models' code is not that of the last tested build: what it made must then be built anew, whole."""
    with connected(settings, settings.snowflake_role) as connection:
        held = _held_build(connection)
    return held is None or held.models != digest_of_models()


def mark_tested(settings: Settings, build: Build) -> None:
    """Say that all models of a prepared build were built, and all blocking tests passed. The caller holds `builder`.

    `AnotherHostBuilds` when the build that Snowflake holds is no longer this one.
    """
    # Code that changed on the way may have built a part of it: then the next build is whole.
    statement = (
        "update meta.build set is_tested = true, models = case when begun_with = %s then begun_with end "
        "where number = %s"
    )
    with connected(settings, settings.snowflake_role) as connection:
        _require_one(run(connection, "mark the build as tested", statement, [digest_of_models(), build.number]))


def publish(settings: Settings, *, timeout: timedelta = timedelta(minutes=10)) -> Publication:
    """Put the tested marts in the place of the published ones, in one step.

    `NothingTested` when none are, `AnotherHostBuilds` when one began to change them while they were cloned.
    """
    schema = settings.snowflake_schema
    with builder(settings, timeout=timeout), connected(settings, settings.snowflake_role) as connection:
        held = _held_build(connection)
        if held is None or held.cut is None or not held.is_tested:
            raise NothingTested(schema)
        clone, *others = publication(schema, is_governed=settings.snowflake_is_governed)
        run(connection, *clone)
        # Whoever changes marts has taken the build's place before.
        if _held_build(connection) != held:
            raise AnotherHostBuilds
        for step in others:
            run(connection, *step)
        return Publication(held.cut, _bytes(connection, schema))


def publication(schema: str, *, is_governed: bool) -> list[tuple[str, str]]:
    """The statements of a publication, and what each of them does; only the swap changes what people read."""
    following = following_schema(schema)
    steps = [
        ("clone the tested marts", f"create or replace transient schema {following} clone {schema}_build"),
        (
            "say which cut they hold",
            f"create or replace transient table {following}.published_cut as select cut_id, made_at, cut "
            "from meta.build",
        ),
        ("open them to their readers", f"call governance.open_to_readers('{following}')"),
        ("publish the marts", f"alter schema {following} swap with {schema}"),
        ("drop the marts of before", f"drop schema if exists {following}"),
    ]
    return [step for step in steps if is_governed or "governance" not in step[1]]


def following_schema(schema: str) -> str:
    """Where a publication prepares the marts that take the place of those in `schema`."""
    return f"{schema}_next"


def published_cut(settings: Settings) -> Cut | None:
    """The cut of the published marts; None when nothing has been published."""
    with connected(settings, settings.snowflake_role) as connection:
        found = _rows_if_there(connection, f"select cut from {settings.snowflake_schema}.published_cut")
    return Cut.from_json(found[0][0]) if found else None


def _held_build(connection: SnowflakeConnection) -> _Held | None:
    """The build that was prepared last; None before the first."""
    for number, cut, is_tested, models in _rows_if_there(
        connection, "select number, cut, is_tested, models from meta.build"
    ):
        return _Held(int(number), Cut.from_json(cut) if cut else None, bool(is_tested), models)
    return None


def _first_held(connection: SnowflakeConnection) -> _Held:
    """What the first build takes the place of."""
    try:
        run(connection, "make the table of builds", BUILD)
    except SnowflakeRefused:
        # Unless another host made it since it was looked for.
        if _held_build(connection) is None:
            raise
    return _Held(number=0, cut=None, is_tested=False, models=None)


def _begin(connection: SnowflakeConnection, held: _Held, cut: Cut) -> Build:
    """The next build, untested, in the place of the held one."""
    build, code = Build(cut, held.number + 1), digest_of_models()
    # What other code left behind untested may not be gone on from, should this one come back.
    models = code if held.models == code else None
    with transaction(connection):
        _require_one(run(connection, "end the build before", "delete from meta.build where number = %s", [held.number]))
        run(
            connection,
            "begin a build",
            "insert into meta.build (cut_id, made_at, cut, is_tested, number, models, begun_with) "
            "select %s, cast(%s as timestamp_tz), %s, false, %s, %s, %s",
            [cut.id, cut.made_at.isoformat(), cut.to_json(), build.number, models, code],
        )
    return build


def _require_one(counted: list[tuple[Any, ...]]) -> None:
    """`AnotherHostBuilds` unless one row was changed."""
    if int(counted[0][0]) != 1:
        raise AnotherHostBuilds


def _rows_if_there(connection: SnowflakeConnection, query: str) -> list[tuple[Any, ...]]:
    try:
        return run(connection, "read which cut is held", query)
    except SnowflakeRefused as refused:
        if refused.errno == NO_SUCH_OBJECT:
            return []
        raise


def _bytes(connection: SnowflakeConnection, schema: str) -> int:
    ((size,),) = run(
        connection,
        "measure the marts",
        "select coalesce(sum(bytes), 0) from information_schema.tables where table_schema = upper(%s)",
        [schema],
    )
    return int(size)
