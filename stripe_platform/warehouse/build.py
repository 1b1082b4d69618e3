"""The build file that dbt writes, and its publication as the file that everybody reads.

One process may hold a DuckDB file at a time, readers included, so dbt writes `build.duckdb` and readers open
`warehouse.duckdb`, which is replaced whole. Whoever builds or publishes holds the lock `build.lock`: once from
`prepare_build` over dbt to `mark_tested`, and once in `publish`. Between the two another builder may start; then its
`prepare_build` has taken the mark away, and `publish` refuses until that build too has passed its tests.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from stripe_platform.cdc.cut import Cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build_rules import (
    Build,
    BuilderIsBusy,
    Publication,
    builder,
    change_logs_of,
    newer_cut,
    recreated_tables,
    require_all_up_to,
)
from stripe_platform.warehouse.change_log_views import create_views
from stripe_platform.warehouse.model_code import digest_of_models
from stripe_platform.warehouse.published import published_connection, published_path

BUILD_NAME = "build.duckdb"
# ioctl of Linux that makes a copy share the blocks of the original, where the file system can.
FICLONE = 0x40049409


class BuildNotTested(StripePlatformError):
    """The build file holds nothing that may be published."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} has no build of all models whose tests passed, so nothing was published and the last "
            "published marts stay: see the failed dbt tests in the run, then `stripe-platform run oltp_to_warehouse`"
        )


def build_path(settings: Settings) -> Path:
    """Path of `build.duckdb`, which dbt writes and nobody else reads."""
    return settings.warehouse_folder / BUILD_NAME


def prepare_build(settings: Settings, cut: Cut) -> Build:
    """Make `raw.<table>` in the build file: one fixed version of the change log, up to a cut and never beyond.

    The build is on the given cut, or on the one that the build file holds already when a run beside this one has built
    further meanwhile. The caller holds `builder`. From here on the build is untested. What staging knows of a table
    whose topic is another one now is forgotten, so that dbt builds it from the whole log. Fails, and leaves the build
    as it was, when raw does not reach the cut (`RawIsBehind`), was read again beyond it (`CutInGap`), is of another
    topic (`TopicWasRecreated`) or has not made up for changes that were lost before Kafka (`ChangesLost`), and on a
    full disk (`NotEnoughDisk`).
    """
    tables = change_logs_of(settings, cut)
    with _build_connection(settings) as connection:
        recreated: set[str] = set()
        if held := _held_build(connection):
            recreated = recreated_tables(held[0], cut)
            cut = cut if recreated else newer_cut(held[0], cut)
        require_all_up_to(cut, tables)
        with _transaction(connection):
            for table in recreated:
                connection.execute(f"drop table if exists staging_state.state_{table}")
            create_views(connection, tables, cut)
            return Build(cut, _begin(connection, cut))


def models_are_others(settings: Settings) -> bool:
    """Whether the models' code is not that of the last tested build: what it made must then be built anew, whole."""
    with _build_connection(settings) as connection:
        ((models,),) = connection.execute("select models from meta.build").fetchall()
    return bool(models != digest_of_models())


def mark_tested(settings: Settings, build: Build) -> None:
    """Say that all models of a prepared build were built, and all blocking tests passed. The caller holds `builder`."""
    # Code that changed on the way may have built a part of it: then the next build is whole.
    tested = (
        "update meta.build set is_tested = true, models = case when begun_with = $models then begun_with end "
        "where number = $number"
    )
    with _build_connection(settings) as connection:
        connection.execute(tested, {"models": digest_of_models(), "number": build.number})


def publish(settings: Settings, *, timeout: timedelta = timedelta(minutes=10)) -> Publication:
    """Put a copy of the tested build in the place of `warehouse.duckdb`, in one step.

    A crash at any point leaves the last published file; what it leaves behind is removed by the next publication.
    `BuildNotTested` when the build's tests have not passed, `BuilderIsBusy` after `timeout`, `NotEnoughDisk`.
    """
    path, target = build_path(settings), published_path(settings)
    copy = target.with_suffix(".publishing")
    with builder(settings, timeout=timeout):
        copy.unlink(missing_ok=True)
        cut = _tested_cut(settings)
        check_free_space(settings, into=settings.warehouse_folder, size=path.stat().st_size)
        _copy(path, copy)
        # A writer of the published file would leave a log beside it that the next file does not fit.
        copy.chmod(0o444)
        os.replace(copy, target)
        _sync_folder(target.parent)
        return Publication(cut, target.stat().st_size)


def published_cut(settings: Settings) -> Cut | None:
    """The cut of the published marts; None when nothing has been published."""
    if not published_path(settings).exists():
        return None
    with published_connection(settings) as connection:
        held = _held_build(connection)
    return held[0] if held else None


def _tested_cut(settings: Settings) -> Cut:
    """The tested build's cut, once all of the build is in the one file (its log is empty)."""
    if not build_path(settings).exists():
        raise BuildNotTested(build_path(settings))
    with _build_connection(settings) as connection:
        held = _held_build(connection)
        connection.execute("checkpoint")
    if held is None or not held[1]:
        raise BuildNotTested(build_path(settings))
    return held[0]


def _held_build(connection: duckdb.DuckDBPyConnection) -> tuple[Cut, bool] | None:
    """The cut that was prepared last, and whether its build passed."""
    exists = connection.execute(
        "select count(*) from duckdb_tables() where schema_name = 'meta' and table_name = 'build'"
    ).fetchall()
    if exists == [(0,)]:
        return None
    ((cut, is_tested),) = connection.execute("select cut, is_tested from meta.build").fetchall()
    return Cut.from_json(cut), is_tested


def _begin(connection: duckdb.DuckDBPyConnection, cut: Cut) -> int:
    """The next build, as its models know it: cut, number, and the code of the last tested one if it is its own.

    Returns its number.
    """
    connection.execute("create schema if not exists meta")
    for table in ("model_builds", "whole_builds"):
        connection.execute(f"create table if not exists meta.{table} (model varchar, number bigint)")
    number, models, code = 0, None, digest_of_models()
    if _is_followed(connection):
        ((number, models),) = connection.execute("select number, models from meta.build").fetchall()
    if models != code:
        # Models of other code, some of other names, may not be gone on from, nor waited for; nor may what this code
        # leaves behind untested, should the other come back.
        models = None
        connection.execute("delete from meta.model_builds")
    connection.execute(
        "create or replace table meta.build as select $id as cut_id, $made_at::timestamptz as made_at, $cut as cut, "
        "false as is_tested, $number::bigint as number, $models::varchar as models, $code::varchar as begun_with",
        {
            **{"id": cut.id, "made_at": cut.made_at, "cut": cut.to_json()},
            **{"number": number + 1, "models": models, "code": code},
        },
    )
    return int(number) + 1


def _is_followed(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the build before says what this one needs: those of earlier releases do not, and are built anew."""
    found = "select count(*) from duckdb_columns() where schema_name = 'meta' and column_name = 'begun_with'"
    return connection.execute(found).fetchall() != [(0,)]


@contextmanager
def _build_connection(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        connection = _open(build_path(settings))
    except duckdb.IOException as error:
        raise BuilderIsBusy(build_path(settings), timedelta(seconds=30)) from error
    with connection:
        connection.execute("set TimeZone = 'UTC'")
        yield connection


# The dbt of a killed run may hold the file for a moment longer than the run held the lock.
@retry(
    retry=retry_if_exception_type(duckdb.IOException),
    wait=wait_exponential_jitter(multiplier=0.1, max=2),
    stop=stop_after_delay(30),
    reraise=True,
)
def _open(path: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(path))


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _copy(source: Path, target: Path) -> None:
    """Copy and make sure that the copy is on disk; shares blocks where the file system can."""
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            fcntl.ioctl(writer, FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, length=16 * 1024 * 1024)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
