"""The spine under load: file → PostgreSQL → topics → raw change log → marts, on a stack of its own.

    uv run --all-extras python benchmarks/spine.py FILE [--repeats 3] [--changes 400000]

FILE is a payments file as `stripe-platform import-payments` reads it. Prints a Markdown table: medians with
the lowest and highest value, the machine and the versions. Needs about 10 GB of disk in the temporary folder.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import polars as pl

from stripe_platform.cdc.connector import register
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.local.environment import environment
from stripe_platform.local.stack import start, stop
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.importer import import_payments
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings
from stripe_platform.warehouse.query import query_rows

CATCH_UP_LIMIT = timedelta(minutes=20)
POLL_S = 0.2

DRAIN = """
import json, resource, time
from datetime import timedelta
from stripe_platform.raw.drain import drain
from stripe_platform.settings import load_settings

began = time.monotonic()
rows = 0
while True:
    report = drain(load_settings(), limit=timedelta(seconds=45))
    rows += report.rows
    if report.lag == 0:
        break
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"rows": rows, "seconds": time.monotonic() - began, "peak_mb": peak / 1024}))
"""


def main() -> None:
    """Run all measurements and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--changes", type=int, default=400_000)
    options = arguments.parse_args()
    with own_stack() as settings:
        lines = measure_file_to_marts(settings, options.file)
        lines += measure_topics(settings, options.changes, options.repeats)
        lines += measure_drain(settings, options.repeats)
    print_report(lines)


@contextmanager
def own_stack() -> Iterator[Settings]:
    """A fresh stack on free ports in a temporary folder, stopped at the end."""
    names = [name for name in Settings.model_fields if name.endswith("_port")]
    with tempfile.TemporaryDirectory(prefix="stripe-platform-benchmark-") as folder:
        settings = start(
            Settings(
                _env_file=None,
                stripe_platform_home=Path(folder),
                **dict(zip(names, free_ports(len(names)), strict=True)),  # type: ignore[arg-type]
            )
        ).settings
        os.environ.update(environment(settings))
        try:
            migrate(settings)
            register(settings)
            yield settings
        finally:
            stop(settings)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def measure_file_to_marts(settings: Settings, file: Path) -> list[tuple[str, str]]:
    """One import of the whole file, and the job that brings it to the marts."""
    began = time.monotonic()
    report = import_payments(settings, file)
    imported = time.monotonic()
    make_cut(settings, timeout=CATCH_UP_LIMIT)
    caught_up = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "stripe_platform.cli", "run", "oltp_to_warehouse"], check=True, capture_output=True
    )
    ended = time.monotonic()
    wanted = pl.scan_parquet(file).select(pl.len(), pl.col("amount").sum()).collect().row(0)
    found = query_rows(settings, "select count(*), sum(amount)::bigint from marts.fact_charges")
    assert found == [wanted], f"the marts hold {found}, the file {wanted}"
    return [
        (
            f"import of {report.imported:,} payments",
            f"{imported - began:.0f} s, {report.imported / (imported - began):,.0f} payments/s",
        ),
        ("the connector has caught up, after the import", f"{caught_up - imported:.0f} s"),
        ("`oltp_to_warehouse`: cut, drain, dbt, publish", f"{ended - caught_up:.0f} s"),
        ("file to marts, in all", f"{ended - began:.0f} s"),
    ]


def measure_topics(settings: Settings, changes: int, repeats: int) -> list[tuple[str, str]]:
    """PostgreSQL to topic: a backlog made while the connector is paused; the clock starts at its first change."""
    rates = []
    with httpx.Client(base_url=settings.connect_url, timeout=30) as connect_rest:
        (name,) = connect_rest.get("/connectors").json()
        for _ in range(repeats):
            connect_rest.put(f"/connectors/{name}/pause").raise_for_status()
            before = end_of_topics(settings)
            write_changes(settings, changes)
            connect_rest.put(f"/connectors/{name}/resume").raise_for_status()
            wait_until_past(settings, before)
            first, first_offset = time.monotonic(), end_of_topics(settings)
            wait_until_past(settings, before + changes - 1)
            rates.append((before + changes - first_offset) / (time.monotonic() - first))
    return [(f"PostgreSQL → topic, {changes:,} changes, exactly-once", spread(rates, "changes/s"))]


def write_changes(settings: Settings, changes: int) -> None:
    """Inserts of charges in transactions of 50 rows."""
    insert = (
        "INSERT INTO charges (merchant_id, amount, amount_captured, currency, status, captured, paid) "
        "SELECT (SELECT id FROM merchants LIMIT 1), n, n, 'eur', 'succeeded', true, true "
        "FROM generate_series(1, 50) AS n"
    )
    with connect(settings, autocommit=True) as postgres:
        for _ in range(changes // 50):
            postgres.execute(insert)


def end_of_topics(settings: Settings) -> int:
    """The last stable offsets of all captured tables, added up."""
    ends = last_stable_offsets(settings, TABLES_BY_NAME)
    return sum(sum(partitions.values()) for partitions in ends.values())


def wait_until_past(settings: Settings, offset: int) -> None:
    """Return when the topics' ends, added up, are past `offset`."""
    deadline = time.monotonic() + CATCH_UP_LIMIT.total_seconds()
    while end_of_topics(settings) <= offset:
        if time.monotonic() > deadline:
            raise TimeoutError("the connector did not catch up")
        time.sleep(POLL_S)


def measure_drain(settings: Settings, repeats: int) -> list[tuple[str, str]]:
    """Topic to raw: everything in the topics, each time into an empty lake, in a process of its own."""
    results = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="stripe-platform-lake-") as lake:
            secrets = {
                name.upper(): settings.secret(name)
                for name in ("postgres_password", "cdc_password", "toast_placeholder")
            }
            drained = subprocess.run(
                [sys.executable, "-c", DRAIN],
                env={**os.environ, **secrets, "STRIPE_PLATFORM_HOME": lake},
                check=True,
                capture_output=True,
                text=True,
            )
            results.append(json.loads(drained.stdout.splitlines()[-1]))
    return [
        (
            f"topic → raw change log, {results[0]['rows']:,} changes",
            spread([result["rows"] / result["seconds"] for result in results], "changes/s"),
        ),
        ("peak memory of that drain", spread([result["peak_mb"] for result in results], "MB")),
    ]


def spread(values: list[float], unit: str) -> str:
    """Median with the lowest and the highest value."""
    return f"{statistics.median(values):,.0f} {unit} ({min(values):,.0f}-{max(values):,.0f}, n={len(values)})"


def print_report(lines: list[tuple[str, str]]) -> None:
    """The results as a Markdown table under the machine and the versions."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("confluent-kafka", "polars", "deltalake", "dbt-duckdb", "duckdb", "dagster")
    )
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {versions}\n")
    print("| what | measured |\n|---|---|")
    for what, measured in lines:
        print(f"| {what} | {measured} |")


if __name__ == "__main__":
    main()
