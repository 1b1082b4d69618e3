"""From nothing to marts: what `stripe-platform up`, `import-payments` and `simulate` do, with progress."""

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import date, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stripe_platform.cdc.connector import register
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.cdc.snapshot import SNAPSHOT_LIMIT, SnapshotProgress, take_snapshots
from stripe_platform.cdc.snapshot_report import described
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.ports import check_ports
from stripe_platform.local.stack import BESIDE, server_states, start, start_beside
from stripe_platform.oltp.importer import ImportReport, import_payments
from stripe_platform.oltp.simulator.history import HistoryReport, has_history, simulate_history
from stripe_platform.oltp.simulator.live import LiveReport, run_live
from stripe_platform.oltp.table_state import bring_up_to_date
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.run import run_job, write_instance_config
from stripe_platform.settings import Settings, load_settings
from stripe_platform.status import platform_status, print_status
from stripe_platform.warehouse.engines import published_cut

# What a newcomer sees: a quarter of a year of a small company, up to the day of the first `up`.
FIRST_PAYMENTS, FIRST_DAYS, FIRST_SEED = 5_000, 90, 1


class JobFailed(StripePlatformError):
    """A job that `up` needs has failed."""

    def __init__(self, job: str, log: Path) -> None:
        super().__init__(f"the job {job} failed, see {log}: mend the cause and run `make up` again, nothing is lost")


def bring_up(settings: Settings, *, empty: bool, console: Console) -> None:
    """Start what does not run, migrate, register, simulate a company and build the marts; print what is where.

    Idempotent: what is done already is left alone. `empty` stops after the connector.
    """
    with _progress() as progress:
        task = progress.add_task("starting", total=None)
        if not empty:
            _check_ports_beside(settings)
        start(settings, progress=lambda step: progress.update(task, description=step))
        settings = load_settings()  # the first start has made the secrets
        write_instance_config(settings)
        progress.update(task, description="migrating, registering the connector")
        for _ in bring_up_to_date(settings, ()):
            pass
        register(settings)
        progress.update(task, description="taking the tables into their topics")
        take_snapshots(settings, limit=SNAPSHOT_LIMIT)
        if not empty:
            _simulate_first_history(settings, progress)
            if not _marts_are_current(settings):
                progress.update(task, description="counting the tables")
                _run(settings, "set_up")
                progress.update(task, description="moving the payments to the marts")
                _run(settings, "oltp_to_warehouse")
            progress.update(task, description="starting the continuous mode, Dagster and the dashboard")
            for server in BESIDE:
                start_beside(settings, server)
        progress.update(task, description="counting")
        status = platform_status(settings)
    print_status(status, console)


def import_with_progress(settings: Settings, file: Path, *, skip_bad: bool, console: Console) -> None:
    """Import `file` and print the report."""
    with _progress() as progress:
        task = progress.add_task(f"importing {file.name}", total=None)
        report = import_payments(
            settings,
            file,
            skip_bad=skip_bad,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(_summary(report), highlight=False, soft_wrap=True)


def snapshot_with_progress(settings: Settings, tables: Sequence[str] | None, *, again: bool, console: Console) -> None:
    """Have the tables taken and print what was."""
    with _progress() as progress:
        task = progress.add_task("waiting for the connector", total=None)

        def show(at: SnapshotProgress) -> None:
            progress.update(task, description=described(at), completed=at.rows, total=at.estimated_rows)

        taken = take_snapshots(settings, tables, again=again, limit=SNAPSHOT_LIMIT, progress=show)
    for each in taken:
        console.print(f"{each.table}: {each.rows:,} rows in {each.seconds:.1f} s", highlight=False, soft_wrap=True)
    if not taken:
        console.print("every table has been taken; --again takes them once more", highlight=False)


def _summary(report: ImportReport) -> str:
    rejects = f"; {report.rejected:,} rejected, see {report.rejects_path}" if report.rejected else ""
    return (
        f"{report.payments:,} payments read, {report.imported:,} imported, {report.already_imported:,} already there "
        f"({report.disputes:,} disputes, {report.merchants:,} merchants, {report.customers:,} customers) "
        f"in {report.seconds:.1f} s{rejects}"
    )


def _check_ports_beside(settings: Settings) -> None:
    """Fail now rather than after minutes of work, when one of them could not listen in the end."""
    up = {server.name for server in server_states(settings) if server.pid}
    for server in BESIDE:
        if server.name not in up:
            check_ports(server, settings)


def simulate_with_progress(
    settings: Settings, *, payments: int, days: int, seed: int, until: date | None, console: Console
) -> None:
    """Write a simulated history and print the report."""
    with _progress() as progress:
        task = progress.add_task("simulating", total=None)
        report = simulate_history(
            settings,
            payments,
            days,
            seed,
            until=until,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(_history_summary(report), highlight=False, soft_wrap=True)


def simulate_live(settings: Settings, *, rate: float, duration: timedelta, seed: int, console: Console) -> None:
    """Make live payments until the time is over, or Ctrl-C or SIGTERM; print what was committed."""
    stop = threading.Event()
    # psycopg warns of each connection that is lost; the report counts them.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        report = run_live(settings, rate, duration, seed, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    console.print(_live_summary(report), highlight=False, soft_wrap=True)


def _history_summary(report: HistoryReport) -> str:
    rows = sum(report.rows.values())
    return (
        f"{report.payments:,} payments of {report.run.days} days until {report.run.until} simulated, {rows:,} rows "
        f"in {report.seconds:.1f} s; {report.batches_written} of {report.batches} batches written, "
        f"{report.batches - report.batches_written} already there"
    )


def _live_summary(report: LiveReport) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(report.committed.items()))
    return (
        f"{report.payments:,} payments in {report.seconds:.1f} s, {report.rate:.1f}/s; "
        f"{report.transactions:,} transactions committed ({kinds}); {report.retried} begun again, "
        f"{report.resolved} found committed, {report.reconnected} reconnections, {report.unresolved} left in doubt"
    )


def _simulate_first_history(settings: Settings, progress: Progress) -> None:
    if has_history(settings, but=(FIRST_PAYMENTS, FIRST_DAYS, FIRST_SEED)):
        return
    task = progress.add_task("simulating payments", total=None)
    simulate_history(
        settings,
        FIRST_PAYMENTS,
        FIRST_DAYS,
        FIRST_SEED,
        progress=lambda done, total: progress.update(task, completed=done, total=total),
    )


def _marts_are_current(settings: Settings) -> bool:
    published = published_cut(settings)
    return published is not None and published.offsets == last_stable_offsets(settings, list(TABLES_BY_NAME))


def _run(settings: Settings, job: str) -> None:
    """Run a job with its log in a file: on the terminal it would drown the progress."""
    log = settings.home / "logs" / f"{job}.log"
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        succeeded = run_job(settings, job)
    if not succeeded:
        raise JobFailed(job, log)


def _progress() -> Progress:
    """Shown on stderr, bound to it now: a job's log goes elsewhere meanwhile, and stdout is for the answer."""
    return Progress(
        SpinnerColumn(),
        # It holds names of files.
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        redirect_stdout=False,
        redirect_stderr=False,
    )
