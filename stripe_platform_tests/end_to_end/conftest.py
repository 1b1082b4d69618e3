"""What the end-to-end tests share: the command line as a user calls it, a file of payments, a comparison of rows."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from stripe_platform.cdc.cut import make_cut
from stripe_platform.local.environment import environment
from stripe_platform.oltp.catalog import Column, captured_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.sample import write_sample
from stripe_platform.oltp.tables import CAPTURED_TABLES, SCHEMA
from stripe_platform.raw.drain import drain_up_to
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform.warehouse.build import build_path, prepare_build
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment

COMMAND_LIMIT_S = 240
Row = tuple[object, ...]


class CommandLine:
    """`stripe-platform` on one stack, each call a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command, running."""
        return subprocess.Popen(
            [sys.executable, "-m", "stripe_platform.cli", *arguments],
            env={**os.environ, **environment(self.settings)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> str:
        """What the command wrote to stdout; fails the test when the exit code is not 0."""
        with self.start(*arguments) as process:
            out, error = process.communicate(timeout=COMMAND_LIMIT_S)
        assert process.returncode == 0, f"{arguments} exited with {process.returncode}:\n{error[-4000:]}"
        return out

    def rows(self, sql: str) -> list[dict[str, str]]:
        """The rows that `sql --csv` gives."""
        return list(csv.DictReader(io.StringIO(self("sql", "--csv", sql))))


@pytest.fixture(scope="session")
def command_line() -> Callable[[Settings], CommandLine]:
    return CommandLine


@pytest.fixture(scope="session")
def payments_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 payments: published ones where they lie beside the checkout, as in CI; else as many of our own."""
    published = PROJECT_ROOT.parent / "shared" / "data" / "handbook_payments_20k.parquet"
    if published.exists():
        return published
    own = tmp_path_factory.mktemp("payments") / "payments.parquet"
    write_sample(own, payments=20_000)
    return own


def stage(settings: Settings) -> Callable[[str], list[Row]]:
    """Take a cut, drain to it and build staging on it, without the marts; gives a query of the build file."""
    cut = make_cut(settings, timeout=timedelta(seconds=120))
    drain_up_to(settings, cut.offsets, cut.offsets)
    target = str(settings.home / "target")
    with builder(settings):
        prepare_build(settings, cut)
        with dbt_environment(settings):
            built = subprocess.run(
                [DBT, "--quiet", "run", "--select", "staging"],
                cwd=PROJECT_DIR,
                env=os.environ | {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target},
                capture_output=True,
                text=True,
                timeout=COMMAND_LIMIT_S,
                check=False,
            )
        assert built.returncode == 0, built.stdout[-4000:]

    def query(sql: str) -> list[Row]:
        with duckdb.connect(str(build_path(settings)), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    return query


@pytest.fixture(scope="session")
def staged() -> Callable[[Settings], Callable[[str], list[Row]]]:
    return stage


@pytest.fixture(scope="session")
def assert_staging_is_oltp() -> Callable[[Settings], None]:
    """Builds staging and compares every captured column of every row of every captured table in PostgreSQL with it."""

    def compare(settings: Settings) -> None:
        query = stage(settings)
        with connect(settings) as postgres:
            columns = captured_columns(postgres)
            for table in CAPTURED_TABLES:
                listed = columns[table.name]
                names = ", ".join(_as_text(column, "(extract(epoch from {}) * 1000000)::bigint") for column in listed)
                oltp = postgres.execute(f"SELECT {names} FROM {SCHEMA}.{table.name}".encode()).fetchall()
                names = ", ".join(_as_text(column, "epoch_us({})") for column in listed)
                staged = query(f"select {names} from staging_state.state_{table.name} where not _deleted")
                expected, found = (_by_key(rows, listed, table.key) for rows in (oltp, staged))
                assert len(found) == len(staged), f"{table.name}: a key is in staging twice"
                differing = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
                assert not differing, (
                    f"{table.name}: {len(differing)} of {len(expected)} rows differ, {len(found)} are staged"
                )

    return compare


def _as_text(column: Column, microseconds: str) -> str:
    return f"cast({microseconds.format(column.name) if column.type == 'timestamptz' else column.name} as varchar)"


def _by_key(rows: list[Row], columns: tuple[Column, ...], key: tuple[str, ...]) -> dict[Row, Row]:
    places = [place for place, column in enumerate(columns) if column.name in key]
    documents = {place for place, column in enumerate(columns) if column.type == "jsonb"}
    return {
        tuple(row[place] for place in places): tuple(
            json.loads(str(value)) if place in documents and value is not None else value
            for place, value in enumerate(row)
        )
        for row in rows
    }
