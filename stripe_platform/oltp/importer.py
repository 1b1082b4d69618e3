"""Payments of a file into PostgreSQL: all of it is judged before any of it is written, and each payment
only once.

Written in transactions of at most `BATCH_ROWS` payments, so that the change stream can follow while the
import goes on; a payment and all that belongs to it commit together. After a crash the next import of the
file goes on where the last one stopped.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import polars as pl
import psycopg

from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.bulk import copy_in
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.import_plan import Fault, ImportPlan, plan_import
from stripe_platform.oltp.partitions import ensure_partitions
from stripe_platform.oltp.payment_rows import RowMaker
from stripe_platform.oltp.payments_file import Batch, PaymentsFile
from stripe_platform.settings import Settings

Progress = Callable[[int, int], None]
"""Called with the rows handled so far and the rows of the file."""

_LOCK = 7_316_410_053
_SHOWN_FAULTS = 20


class BadRows(StripePlatformError):
    """Rows that cannot be imported; nothing was written."""

    def __init__(self, path: Path, faults: tuple[Fault, ...], total: int) -> None:
        shown = "".join(f"\n  row {fault.row}: {fault.reason}" for fault in faults)
        more = f"\n  … and {total - len(faults)} more" if total > len(faults) else ""
        super().__init__(
            f"{path}: {total} bad {'row' if total == 1 else 'rows'}, nothing was imported:{shown}{more}\n"
            "mend them, or import the others with --skip-bad"
        )
        self.faults = faults
        self.total = total


class ImportStopped(StripePlatformError):
    """PostgreSQL refused or was lost in the middle; what is committed stays."""

    def __init__(self, path: Path, error: psycopg.Error) -> None:
        # The primary message alone: the detail may hold row values.
        reason = error.diag.message_primary or error.__class__.__name__
        super().__init__(f"{path}: the import stopped ({reason}); import the file again to go on from there")


class FileChanged(StripePlatformError):
    """The file is not the one that was judged, so the rest of it is not imported; what is committed stays."""

    def __init__(self, path: Path, done: int) -> None:
        super().__init__(
            f"{path} changed while it was imported, {done:,} of its rows are done: "
            "when nothing writes to it any more, import it again to go on from there"
        )


@dataclass(frozen=True)
class ImportReport:
    """What an import did; `payments` is the number of rows read, of which each is in one of the next three counts."""

    payments: int
    imported: int
    already_imported: int
    rejected: int
    disputes: int
    merchants: int
    customers: int
    rejects_path: Path | None
    seconds: float


def import_payments(
    settings: Settings, path: Path, *, skip_bad: bool = False, progress: Progress | None = None
) -> ImportReport:
    """Import the payments of a Parquet or CSV file; those already imported with equal content are passed
    over.

    A bad row raises `BadRows` before anything is written; with `skip_bad` bad rows are written with number
    and reason to `<file>.rejects.csv` instead and the others imported. Raises `PaymentsFileError` when the
    file as a whole cannot be read, `FileChanged` when it changes meanwhile, `ImportStopped` when
    PostgreSQL fails, `NotEnoughDisk` between two batches.
    """
    started = time.monotonic()
    file = PaymentsFile(Path(path))
    stamp = file.stamp()
    rows = file.rows()
    try:
        with connect(settings, autocommit=True) as connection, _alone(connection):
            plan = plan_import(connection, file, rows, shown=_SHOWN_FAULTS)
            if plan.bad and not skip_bad:
                raise BadRows(file.path, plan.faults, plan.bad)
            if file.stamp() != stamp:
                raise FileChanged(file.path, done=0)
            rejects_path = file.path.with_name(f"{file.path.name}.rejects.csv") if plan.bad else None
            batches = _while_there_is_room(settings, _unchanged(file, stamp, plan.currencies))
            written = _write(connection, batches, plan, rejects_path, progress or _silent)
    except psycopg.Error as error:
        raise ImportStopped(file.path, error) from error
    return ImportReport(
        payments=rows,
        imported=written["charges"],
        already_imported=rows - written["charges"] - plan.bad,
        rejected=plan.bad,
        disputes=written["disputes"],
        merchants=written["merchants"],
        customers=written["customers"],
        rejects_path=rejects_path,
        seconds=time.monotonic() - started,
    )


def _silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    connection.execute("SET statement_timeout = '10min'; SET lock_timeout = '30s'")
    if connection.execute("SELECT to_regclass('payments.imported_parties')").fetchone() == (None,):
        raise StripePlatformError("the payments tables are not there: run the migrations (`stripe-platform up`)")
    if connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() == (False,):
        raise StripePlatformError("another import is running on this database: wait until it has ended")
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _unchanged(file: PaymentsFile, stamp: tuple[int, ...], currencies: frozenset[str]) -> Iterator[Batch]:
    """The batches of the file as long as it is the one that was judged."""
    done = 0
    for batch in file.batches(currencies):
        if file.stamp() != stamp:
            raise FileChanged(file.path, done)
        yield batch
        done += batch.raw.height
    # A file that was cut short has no further batch.
    if file.stamp() != stamp:
        raise FileChanged(file.path, done)


def _while_there_is_room(settings: Settings, batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        check_free_space(settings)
        yield batch


def _write(
    connection: psycopg.Connection,
    batches: Iterator[Batch],
    plan: ImportPlan,
    rejects_path: Path | None,
    progress: Progress,
) -> dict[str, int]:
    written = dict.fromkeys(("charges", "disputes", "merchants", "customers"), 0)
    if plan.months:
        ensure_partitions(connection, plan.months)
    maker = RowMaker(known=plan.known_parties, first_seen=plan.first_seen)
    done = 0
    progress(done, plan.rows)
    with _rejects(rejects_path) as rejects:
        for batch in batches:
            if rejects is not None:
                _reject(rejects, batch.raw, pl.concat([batch.bad, plan.clashes]))
            payments = plan.to_import(batch.good)
            if payments.height:
                with connection.transaction():
                    for table, frame in maker.rows(payments):
                        copy_in(connection, table, frame)
                        if table in written:
                            written[table] += frame.height
            done += batch.raw.height
            progress(done, plan.rows)
    return written


@contextmanager
def _rejects(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise StripePlatformError(
            f"the rejects file {path} cannot be written ({error.strerror}), nothing was imported: "
            "copy the payments to a folder you can write to"
        ) from error
    with file:
        yield file


def _reject(rejects: TextIO, raw: pl.DataFrame, bad: pl.DataFrame) -> None:
    rows = bad.join(raw, on="row", maintain_order="right")
    rejects.write(rows.write_csv(include_header=rejects.tell() == 0))
