"""The build on Snowflake, and its publication as the marts that people read.

dbt builds the marts in `<schema>_build`; people read `<schema>`. Once the tests have passed, a clone of the first (no row
is copied) changes its name with the second, in one statement. A failing test, or a crash, leaves the last published
marts. As on DuckDB, whoever builds or publishes holds the lock of this host.
"""

from datetime import timedelta

from snowflake.connector import SnowflakeConnection

from stripe_platform.cdc.cut import Cut
from stripe_platform.cdc.holes import ChangesLost
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.mending import not_made_up_for
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import (
    Publication,
    _newer,
    _recreated,
    _require_all_up_to,
    _require_same_topics,
    builder,
)
from stripe_platform.warehouse.change_log_views import read_raw
from stripe_platform.warehouse.snowflake.connection import SnowflakeRefused, connected, run, transaction
from stripe_platform.warehouse.snowflake.load import LoadedFromAnotherTopic, load_change_log

NO_SUCH_OBJECT = 2003
BUILD = (
    "create table if not exists meta.build "
    "(number number(38,0), cut_id text, made_at timestamp_tz, cut text, is_tested boolean)"
)


class AnotherHostBuilds(StripePlatformError):
    """The build was prepared anew by another host meanwhile."""

    def __init__(self) -> None:
        super().__init__(
            "another host prepared a build on Snowflake at the same time, so this one stops: let one host alone build"
        )


class NothingTested(StripePlatformError):
    """Snowflake holds no build that may be published."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"{schema}_build on Snowflake has no build of all models whose tests passed, so nothing was published and "
            f"{schema} stays: see the failed dbt tests in the run, then `stripe-platform run oltp_to_warehouse`"
        )


def prepare_build(settings: Settings, cut: Cut) -> Cut:
    """Load the change log up to a cut and never beyond; the promises of `warehouse.build.prepare_build`.

    Beside those, `LoadedFromAnotherTopic` when Snowflake holds changes of a topic that is no more.
    """
    check_free_space(settings)
    if holes := not_made_up_for(settings, cut.holes):
        raise ChangesLost(holes)
    tables = {name: read_raw(settings, name) for name in TABLES_BY_NAME}
    _require_same_topics(cut, tables)
    with connected(settings, settings.snowflake_loader_role) as connection:
        run(connection, "make the table of builds", BUILD)
        number, held, _ = _held_build(connection)
        if held:
            for table in sorted(_recreated(held, cut)):
                raise LoadedFromAnotherTopic(table)
            cut = _newer(held, cut)
        _require_all_up_to(cut, tables)
        # Before the load: killed in the midst of it, the next run goes on with this cut or a later one.
        _store(connection, number, cut)
    load_change_log(settings, tables, cut)
    return cut


def mark_tested(settings: Settings) -> None:
    """Say that all models were built on the prepared cut and all blocking tests passed. The caller holds `builder`."""
    with connected(settings, settings.snowflake_role) as connection:
        run(connection, "mark the build as tested", "update meta.build set is_tested = true")


def publish(settings: Settings, *, timeout: timedelta = timedelta(minutes=10)) -> Publication:
    """Put the tested marts in the place of the published ones, in one step; `NothingTested` when none are."""
    schema = settings.snowflake_schema
    with builder(settings, timeout=timeout), connected(settings, settings.snowflake_role) as connection:
        _, cut, is_tested = _held_build(connection)
        if cut is None or not is_tested:
            raise NothingTested(schema)
        for what, statement in publication(schema):
            run(connection, what, statement)
        return Publication(cut, _bytes(connection, schema))


def publication(schema: str) -> list[tuple[str, str]]:
    """The statements of a publication, and what each of them does; only the swap changes what people read."""
    following = f"{schema}_next"
    return [
        ("clone the tested marts", f"create or replace transient schema {following} clone {schema}_build"),
        (
            "say which cut they hold",
            f"create or replace transient table {following}.published_cut as select cut_id, made_at, cut "
            "from meta.build",
        ),
        ("publish the marts", f"alter schema {following} swap with {schema}"),
        ("drop the marts of before", f"drop schema if exists {following}"),
    ]


def published_cut(settings: Settings) -> Cut | None:
    """The cut of the published marts; None when nothing has been published."""
    with connected(settings, settings.snowflake_role) as connection:
        found = _rows_if_there(connection, f"select cut from {settings.snowflake_schema}.published_cut")
    return Cut.from_json(found[0][0]) if found else None


def _held_build(connection: SnowflakeConnection) -> tuple[int, Cut | None, bool]:
    """Number and cut of the build that was prepared last, and whether it passed; 0 before the first."""
    for number, cut, is_tested in _rows_if_there(connection, "select number, cut, is_tested from meta.build"):
        return int(number), Cut.from_json(cut), bool(is_tested)
    return 0, None, False


def _store(connection: SnowflakeConnection, held: int, cut: Cut) -> None:
    """The next build, untested, in the place of the held one."""
    with transaction(connection):
        ((deleted,),) = run(connection, "end the build before", "delete from meta.build where number = %s", [held])
        if held and int(deleted) != 1:
            raise AnotherHostBuilds
        run(
            connection,
            "begin a build",
            "insert into meta.build (number, cut_id, made_at, cut, is_tested) "
            "select %s, %s, cast(%s as timestamp_tz), %s, false",
            [held + 1, cut.id, cut.made_at.isoformat(), cut.to_json()],
        )


def _rows_if_there(connection: SnowflakeConnection, query: str) -> list[tuple[object, ...]]:
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
