"""The simulator under load: a history by COPY, and live payments, on a PostgreSQL of its own.

    uv run --all-extras python benchmarks/simulator.py [--payments 200000] [--rates 200 400] [--seconds 30]

Prints a Markdown table: payments and rows per second, peak memory, the processor time of both sides, and the rate
reached live. Needs about 3 GB of disk in the temporary folder for 200,000 payments.
"""

import argparse
import os
import platform
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from stripe_platform.local.stack import start, stop
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.simulator.history import simulate_history
from stripe_platform.oltp.simulator.live import run_live
from stripe_platform.settings import Settings

DAYS = 90


def main() -> None:
    """Run all measurements and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--payments", type=int, default=200_000)
    arguments.add_argument("--rates", type=float, nargs="*", default=[200.0, 400.0])
    arguments.add_argument("--seconds", type=float, default=30.0)
    options = arguments.parse_args()
    with own_stack() as settings:
        migrate(settings)
        lines = measure_history(settings, options.payments)
        lines += [measure_live(settings, rate, options.seconds) for rate in options.rates]
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| what | measured |\n|---|---|")
    for what, measured in lines:
        print(f"| {what} | {measured} |")


@contextmanager
def own_stack() -> Iterator[Settings]:
    """A fresh stack on free ports in a temporary folder, stopped at the end."""
    names = [name for name in Settings.model_fields if name.endswith("_port")]
    with tempfile.TemporaryDirectory(prefix="stripe-platform-benchmark-") as folder:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
        ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
        for each in sockets:
            each.close()
        # PostgreSQL, when root runs this, is another user who must get through.
        Path(folder).chmod(0o711)
        settings = start(Settings.model_validate({"stripe_platform_home": folder, **ports})).settings
        try:
            yield settings
        finally:
            stop(settings)


def measure_history(settings: Settings, payments: int) -> list[tuple[str, str]]:
    """One history, and what it cost both sides."""
    before = server_seconds(settings)
    report = simulate_history(settings, payments, DAYS, seed=1, until=datetime.now(UTC).date())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows = sum(report.rows.values())
    server = server_seconds(settings) - before
    return [
        (
            f"history of {payments:,} payments, {rows:,} rows in {report.batches} transactions",
            f"{report.seconds:.1f} s, {payments / report.seconds:,.0f} payments/s, {rows / report.seconds:,.0f} rows/s",
        ),
        ("processor time of PostgreSQL, a payment", f"{server / payments * 1e6:.0f} µs"),
        ("processor time of the simulator, a payment", f"{usage.ru_utime / payments * 1e6:.0f} µs"),
        ("peak memory of the simulator", f"{usage.ru_maxrss / 1024:.0f} MB"),
    ]


def server_seconds(settings: Settings) -> float:
    """Processor time of the server and of all its processes that have ended."""
    pid = int((settings.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    server = psutil.Process(pid)
    times = [each.cpu_times() for each in [server, *server.children(recursive=True)]]
    ended = server.cpu_times()
    return sum(each.user + each.system for each in times) + ended.children_user + ended.children_system


def measure_live(settings: Settings, rate: float, seconds: float) -> tuple[str, str]:
    """Live payments at a rate."""
    report = run_live(settings, rate, timedelta(seconds=seconds), seed=1)
    return (
        f"live, {rate:g} payments/s asked for over {seconds:g} s",
        f"{report.rate:.1f} payments/s, {report.transactions / report.seconds:.0f} transactions/s",
    )


if __name__ == "__main__":
    main()
