"""dbt builds by the length of the history: the whole of it, and the next few thousand changes.

    uv run --all-extras python benchmarks/warehouse_builds.py FILE [--lake FOLDER] [--repeats 3] [--picture FILE]

FILE is a payments file as `stripe-platform import-payments` reads it. It is imported on a stack of its own and drained
to the raw change log, which is kept in `--lake` (a second run with the same folder begins there). Then the warehouse is
built from a twentieth, a tenth, a third and the whole of that log: once whole, and `--repeats` times with further
changes, half of them new payments, half known ones of any age that are told again. A build is what a run does, tests
included, unit tests excluded. Prints a Markdown table; stops if the marts do not hold the file's count and sum.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import altair as alt
import duckdb
import polars as pl
import pyarrow as pa

from benchmarks.spine import CATCH_UP_LIMIT, own_stack, print_report
from stripe_platform.cdc.cut import Cut, make_cut
from stripe_platform.oltp.importer import import_payments
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import ChangeLog, parquet_files
from stripe_platform.raw.drain import drain
from stripe_platform.raw.schema import BOOKKEEPING
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path, mark_tested, prepare_build
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment

SHARES = (0.05, 0.1, 0.33, 1.0)
TOLD = """
with latest as (
    select * exclude (_loaded_at) from read_parquet($files, union_by_name = true)
    qualify row_number() over (partition by id order by _offset desc) = 1
),
ends as (select max(created) as created, max(_committed_at) as committed_at, max(_lsn) as lsn from latest),
next as (select unnest($partitions) as _partition, unnest($offsets) as begin),
told as (
    select latest.*, sampled.place, next.begin, ends.created as now, ends.committed_at, ends.lsn
    from latest
    inner join sampled on latest.{charge} = sampled.id
    inner join next on latest._partition = next._partition
    cross join ends
)
select * exclude (place, begin, now, committed_at, lsn) replace (
    {renamed},
    case when place % 2 = 0 then now else created end as created,
    case when place % 2 = 0 then 'c' else 'u' end as _op,
    committed_at + interval 1 second as _committed_at,
    lsn + place as _lsn,
    begin - 1 + row_number() over (partition by _partition order by place) as _offset
)
from told
"""


@dataclass(frozen=True)
class Builds:
    """Seconds of the builds from one length of history: its charges, their sum, and the changes of each further one."""

    charges: int
    amount: int
    whole: float
    changes: int
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
        assert_all_is_there(measured[-1], options.file)
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


def measure(whole: Settings, share: float, changes: int, repeats: int) -> Builds:
    """One whole build of a share of the log, then as many further ones as are asked for, some changes later each."""
    with tempfile.TemporaryDirectory(prefix="stripe-platform-share-") as folder, duckdb.connect() as log:
        log.execute("set TimeZone = 'UTC'")
        settings = Settings(_env_file=None, stripe_platform_home=Path(folder))
        copy_share(log, whole, settings, share)
        seconds = build(settings, cut_at_end(settings))
        ((charges, amount),) = rows_of_build(settings, "select count(*), sum(amount)::bigint from marts.fact_charges")
        next_ones = []
        for number in range(repeats):
            go_on(log, settings, changes, number)
            next_ones.append(build(settings, cut_at_end(settings)))
    return Builds(charges, amount, seconds, changes, next_ones)


def copy_share(log: duckdb.DuckDBPyConnection, whole: Settings, settings: Settings, share: float) -> None:
    """A change log of all that was committed up to where a share of the ledger's rows was."""
    ends = "select quantile_disc(_committed_at, $share) from read_parquet($files)"
    files = parquet_files(whole, "balance_transactions")
    ((end,),) = log.execute(ends, {"files": files, "share": share}).fetchall()
    for table in TABLES_BY_NAME:
        original = ChangeLog.existing(whole, table)
        assert original is not None
        columns = original.columns
        row = pa.schema([field for field in columns if field.name not in BOOKKEEPING])
        copy = ChangeLog.open(settings, table, row=row, topic_id=original.topic_id)
        if files := parquet_files(whole, table):
            every = "select * exclude (_loaded_at) from read_parquet($files, union_by_name = true)"
            upto = log.execute(f"{every} where _committed_at <= $end", {"files": files, "end": end})
            append(copy, upto.to_arrow_table())


def append(log: ChangeLog, rows: pa.Table) -> None:
    """Write rows with their offsets; each partition goes on behind its last."""
    offsets = dict(log.next_offsets)
    for last in rows.group_by("_partition").aggregate([("_offset", "max")]).to_pylist():
        offsets[last["_partition"]] = last["_offset_max"] + 1
    log.append(rows, offsets)


def go_on(log: duckdb.DuckDBPyConnection, settings: Settings, changes: int, number: int) -> None:
    """New payments, each a charge and its ledger row, and as many known ones of any age that are told again."""
    sampled = "select id, row_number() over (order by hash(id, $number)) as place from read_parquet($files)"
    log.execute(
        f"create or replace temp table sampled as {sampled} where _op <> 'u' qualify place <= $payments",
        {"files": parquet_files(settings, "charges"), "number": number, "payments": changes // 2},
    )
    for table, charge in (("charges", "id"), ("balance_transactions", "source_id")):
        kept = ChangeLog.existing(settings, table)
        assert kept is not None
        renamed = [new_id(column, number) for column in dict.fromkeys(("id", charge))]
        rows = log.execute(
            TOLD.format(renamed=", ".join(renamed), charge=charge),
            {
                "files": parquet_files(settings, table),
                "partitions": list(kept.next_offsets),
                "offsets": list(kept.next_offsets.values()),
            },
        )
        append(kept, rows.to_arrow_table())


def new_id(column: str, number: int) -> str:
    """SQL of another id for every second sampled payment."""
    other = f"substr({column}, 1, 24) || substr(md5({column} || '{number}'), 1, 12)"
    return f"case when place % 2 = 0 then {other} else {column} end as {column}"


def cut_at_end(settings: Settings) -> Cut:
    """The cut that holds all of the log."""
    offsets, topic_ids = {}, {}
    for table in TABLES_BY_NAME:
        log = ChangeLog.existing(settings, table)
        assert log is not None
        offsets[table], topic_ids[table] = dict(log.next_offsets), log.topic_id
    now = datetime.now(UTC)
    return Cut(f"at-{now.isoformat()}", now, offsets, topic_ids)


def build(settings: Settings, cut: Cut) -> float:
    """Seconds of one build with its tests, as a run does it."""
    began = time.monotonic()
    with builder(settings), dbt_environment(settings):
        prepared = prepare_build(settings, cut)
        target = str(settings.home / "target")
        subprocess.run(
            [DBT, "--quiet", "build", "--exclude-resource-type", "unit_test"],
            cwd=PROJECT_DIR,
            env=os.environ | {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target},
            check=True,
        )
        mark_tested(settings, prepared)
    return time.monotonic() - began


def rows_of_build(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """All rows of a query on the build file."""
    with duckdb.connect(str(build_path(settings)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def assert_all_is_there(builds: Builds, file: Path) -> None:
    """The whole build was of the whole file."""
    wanted = pl.scan_parquet(file).select(pl.len(), pl.col("amount").sum()).collect().row(0)
    found = (builds.charges, builds.amount)
    assert found == wanted, f"the marts hold {found}, the file {wanted}"


def lines(builds: Builds) -> list[tuple[str, str]]:
    """What was measured, for the table."""
    seconds = builds.next_ones
    spread = f"{statistics.median(seconds):.1f} s ({min(seconds):.1f}-{max(seconds):.1f}, n={len(seconds)})"
    return [
        (f"{builds.charges:,} charges, whole", f"{builds.whole:.0f} s"),
        (f"{builds.charges:,} charges, the next {builds.changes:,} changes", spread),
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
