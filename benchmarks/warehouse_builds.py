"""dbt builds by the length of the history: the whole of it, and the next few thousand changes.

    uv run --all-extras python benchmarks/warehouse_builds.py FILE [--lake FOLDER] [--repeats 3] [--picture FILE]

FILE is a payments file as `stripe-platform import-payments` reads it. It is imported on a stack of its own and drained
to the raw change log, which is kept in `--lake` (a second run with the same folder begins there). Then the warehouse is
built from a tenth, a quarter, a half and the whole of that history, by commits: once whole, and `--repeats`
times a further batch of changes. A build is what a run does, tests included, unit tests excluded.
Prints a Markdown table; stops if the marts do not hold the file's count and sum.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import duckdb
import polars as pl

from benchmarks.spine import CATCH_UP_LIMIT, own_stack, print_report
from stripe_platform.cdc.cut import Cut, make_cut
from stripe_platform.oltp.importer import import_payments
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import ChangeLog, parquet_files
from stripe_platform.raw.drain import drain
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path, builder, mark_tested, prepare_build
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment

SHARES = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Builds:
    """Seconds of the builds from one length of history, with the charges and changes behind them."""

    charges: int
    whole: float
    batch: list[int]
    next_ones: list[float]


def main() -> None:
    """Import, drain, build from each length of history, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--lake", type=Path)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--changes", type=int, default=5_000)
    arguments.add_argument("--picture", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="stripe-platform-builds-") as folder:
        home = options.lake or Path(folder)
        settings = Settings(_env_file=None, stripe_platform_home=home)
        if not settings.lake.exists():
            fill_lake(options.file, settings.lake)
        measured = [measure(settings, share, options.changes, options.repeats) for share in SHARES]
        assert_all_is_there(settings, options.file)
    print_report([line for builds in measured for line in lines(builds)])
    if options.picture:
        draw(measured, options.picture)


def fill_lake(file: Path, lake: Path) -> None:
    """Import the file on a stack of its own, and keep the change log that comes of it."""
    with own_stack() as settings:
        import_payments(settings, file)
        make_cut(settings, timeout=CATCH_UP_LIMIT)
        while drain(settings, limit=timedelta(seconds=45)).lag:
            pass
        shutil.copytree(settings.lake, lake)


def measure(settings: Settings, share: float, changes: int, repeats: int) -> Builds:
    """One whole build short of the share's end, then as many further ones as are asked for, a batch of changes each."""
    shutil.rmtree(settings.warehouse_folder, ignore_errors=True)
    with duckdb.connect() as log:
        log.execute("set TimeZone = 'UTC'")
        ends = ends_of_builds(log, settings, share, changes, repeats)
        cuts = [cut_at(log, settings, end) for end in ends]
    whole = build(settings, cuts[0])
    next_ones = [build(settings, cut) for cut in cuts[1:]]
    sizes = [sum(sum(partitions.values()) for partitions in cut.offsets.values()) for cut in cuts]
    ((charges,),) = rows_of_build(settings, "select count(*) from marts.fact_charges")
    return Builds(charges, whole, [after - before for before, after in pairwise(sizes)], next_ones)


def ends_of_builds(
    log: duckdb.DuckDBPyConnection, settings: Settings, share: float, changes: int, repeats: int
) -> list[datetime]:
    """Commit times, so many ledger rows apart, of which the last is where the share of the history ends."""
    files = parquet_files(settings, "balance_transactions")
    total = log.execute("select count(*) from read_parquet($files)", {"files": files}).fetchall()[0][0]
    last = int(total * share)
    places = [last - changes // 2 * step for step in range(repeats, 0, -1)] + [last]
    at = "select _committed_at from read_parquet($files) order by _committed_at limit 1 offset $place"
    return [log.execute(at, {"files": files, "place": place - 1}).fetchall()[0][0] for place in places]


def cut_at(log: duckdb.DuckDBPyConnection, settings: Settings, end: datetime) -> Cut:
    """The cut that holds every transaction committed up to a time, and no other."""
    offsets: dict[str, dict[int, int]] = {}
    topic_ids = {}
    for table in TABLES_BY_NAME:
        change_log = ChangeLog.existing(settings, table)
        assert change_log is not None
        topic_ids[table] = change_log.topic_id
        offsets[table] = dict.fromkeys(change_log.next_offsets, 0)
        if files := parquet_files(settings, table):
            upto = (
                "select _partition, max(_offset) + 1 from read_parquet($files) where _committed_at <= $end group by 1"
            )
            offsets[table] |= dict(log.execute(upto, {"files": files, "end": end}).fetchall())
    return Cut(f"at-{end.isoformat()}", end, offsets, topic_ids)


def build(settings: Settings, cut: Cut) -> float:
    """Seconds of one build with its tests, as a run does it."""
    began = time.monotonic()
    with builder(settings), dbt_environment(settings):
        prepare_build(settings, cut)
        target = str(settings.home / "target")
        subprocess.run(
            [DBT, "--quiet", "build", "--exclude-resource-type", "unit_test"],
            cwd=PROJECT_DIR,
            env=os.environ | {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target},
            check=True,
        )
        mark_tested(settings)
    return time.monotonic() - began


def rows_of_build(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a query on the build file."""
    with duckdb.connect(str(build_path(settings)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def assert_all_is_there(settings: Settings, file: Path) -> None:
    """The last build is of the whole file."""
    wanted = pl.scan_parquet(file).select(pl.len(), pl.col("amount").sum()).collect().row(0)
    found = rows_of_build(settings, "select count(*), sum(amount)::bigint from marts.fact_charges")
    assert found == [wanted], f"the marts hold {found}, the file {wanted}"


def lines(builds: Builds) -> list[tuple[str, str]]:
    """What was measured, for the table."""
    batch = statistics.median(builds.batch)
    seconds = builds.next_ones
    spread = f"{statistics.median(seconds):.1f} s ({min(seconds):.1f}-{max(seconds):.1f}, n={len(seconds)})"
    return [
        (f"{builds.charges:,} charges, whole", f"{builds.whole:.0f} s"),
        (f"{builds.charges:,} charges, the next {batch:,.0f} changes", spread),
    ]


def draw(measured: list[Builds], picture: Path) -> None:
    """Both kinds of build by the length of the history."""
    rows = [
        {"charges": builds.charges, "seconds": seconds, "build": kind}
        for builds in measured
        for kind, seconds in (("whole", builds.whole), ("the next changes", statistics.median(builds.next_ones)))
    ]
    alt.Chart(alt.InlineData(values=rows)).mark_line(point=True).encode(
        x=alt.X("charges:Q", title="charges in the history"),
        y=alt.Y("seconds:Q", title="seconds a build"),
        color=alt.Color("build:N", title=None),
    ).properties(width=520, height=300, title="dbt build by the length of the history").save(str(picture))


if __name__ == "__main__":
    main()
