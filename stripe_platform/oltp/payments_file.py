"""A file of payments, Parquet or CSV, read in batches and judged row by row."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl

from stripe_platform.errors import StripePlatformError

COLUMNS = (
    "payment_ref",
    "occurred_at",
    "customer_ref",
    "merchant_ref",
    "amount",
    "currency",
    "fraud_reported_at",
)
BATCH_ROWS = 50_000

_REFS = ("payment_ref", "customer_ref", "merchant_ref")
_TIMES = ("occurred_at", "fraud_reported_at")
_UTC_MICROSECONDS = pl.Datetime("us", "UTC")
_CONTROL = r"[\x00-\x1f\x7f]"
# An index on longer text fails in PostgreSQL.
_LONGEST_REF = 255
# Twelve digits are more than any payment; a sum of nine million of them still fits a bigint.
_LARGEST_AMOUNT = 10**12 - 1


class PaymentsFileError(StripePlatformError):
    """The file as a whole cannot be read as payments."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; the file needs the columns {', '.join(COLUMNS)}, as Parquet or CSV")


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of the file, numbered from 1 in the column `row`.

    `raw` is as read; `good` holds the rows that can be imported, typed (references as text, times in UTC);
    `bad` holds `row` and `reason` of the others.
    """

    raw: pl.DataFrame
    good: pl.DataFrame
    bad: pl.DataFrame


@dataclass(frozen=True)
class PaymentsFile:
    """Payments at a path; every method reads the file afresh, at most a few batches in memory."""

    path: Path

    def rows(self) -> int:
        """How many rows the file has; `PaymentsFileError` when it cannot be read."""
        try:
            count: int = self._scan().select(pl.len()).collect().item()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise PaymentsFileError(self.path, _summary(error)) from error
        return count

    def batches(self, currencies: frozenset[str]) -> Iterator[Batch]:
        """Every row of the file, in order, judged against the known currencies."""
        try:
            for raw in (
                self._scan()
                .with_row_index("row", offset=1)
                .collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming")
            ):
                yield _judged(raw, currencies)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise PaymentsFileError(self.path, _summary(error)) from error

    def stamp(self) -> tuple[int, ...]:
        """Inode, size and time of last change: the same before and after means the same file."""
        try:
            stat = self.path.stat()
        except OSError as error:
            raise PaymentsFileError(self.path, _summary(error)) from error
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _scan(self) -> pl.LazyFrame:
        if self.path.suffix == ".csv":
            # Text throughout: a value of the wrong type is then a bad row with a number, not a failed read.
            frame = pl.scan_csv(self.path, infer_schema=False)
        elif self.path.suffix == ".parquet":
            frame = pl.scan_parquet(self.path)
        else:
            raise PaymentsFileError(self.path, "is named neither .parquet nor .csv")
        schema = frame.collect_schema()
        missing = [name for name in COLUMNS if name not in schema]
        if missing:
            raise PaymentsFileError(self.path, f"has no column {', '.join(missing)}")
        unfit = [f"{name} ({schema[name]})" for name in COLUMNS if not _fits(name, schema[name])]
        if unfit:
            raise PaymentsFileError(self.path, f"has columns of the wrong type: {', '.join(unfit)}")
        return frame.select(COLUMNS)


def content_hashes(payments: pl.DataFrame) -> pl.Series:
    """SHA-256 in hexadecimal over every field of each good row: equal exactly when the payments are.

    No field holds a control character, so the separator cannot be imitated.
    """
    canonical = payments.select(
        pl.concat_str(
            "payment_ref",
            pl.col("occurred_at").dt.epoch("us"),
            "customer_ref",
            "merchant_ref",
            "amount",
            "currency",
            pl.col("fraud_reported_at").dt.epoch("us").cast(pl.String).fill_null(""),
            separator="\x1f",
        )
    ).to_series()
    return pl.Series("content_hash", [sha256(text.encode()).hexdigest() for text in canonical], dtype=pl.String)


def _summary(error: Exception) -> str:
    # The rest of a polars message may quote the line at fault.
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"cannot be read ({error.__class__.__name__})"


def _fits(name: str, dtype: pl.DataType) -> bool:
    if name in _TIMES:
        return isinstance(dtype, pl.Datetime | pl.String | pl.Null)
    if name in ("amount", "payment_ref"):
        return dtype.is_integer() or isinstance(dtype, pl.String)
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _judged(raw: pl.DataFrame, currencies: frozenset[str]) -> Batch:
    typed = raw.select(
        "row",
        *(pl.col(name).cast(pl.String) for name in _REFS),
        *(_time(name, raw.schema[name]).alias(name) for name in _TIMES),
        _amount(raw.schema["amount"]).alias("amount"),
        pl.col("currency").cast(pl.String),
        reason=None,
        report_given=pl.col("fraud_reported_at").is_not_null(),
    ).with_columns(reason=_reason(currencies))
    bad = pl.col("reason").is_not_null()
    return Batch(
        raw=raw,
        good=typed.filter(~bad).select("row", *COLUMNS),
        bad=typed.filter(bad).select("row", "reason"),
    )


def _amount(dtype: pl.DataType) -> pl.Expr:
    amount = pl.col("amount")
    if isinstance(dtype, pl.String):
        amount = pl.when(amount.str.contains(r"^[+-]?[0-9]+$")).then(amount)
    return amount.cast(pl.Int64, strict=False)


def _time(name: str, dtype: pl.DataType) -> pl.Expr:
    time = pl.col(name)
    if isinstance(dtype, pl.Datetime):
        return (time if dtype.time_zone else time.dt.replace_time_zone("UTC")).cast(_UTC_MICROSECONDS)
    # `2018-04-01 00:00:31`, with T for the space, a fraction, and Z or an offset; without either it is UTC.
    text = time.cast(pl.String).str.replace(r"^([0-9-]{10})T", "$1 ").str.replace(r"(Z|z| UTC)$", "+00:00")
    with_offset = pl.when(text.str.contains(r"[+-]\d\d:?\d\d$")).then(text).otherwise(text + "+00:00")
    return with_offset.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_unit="us", strict=False).cast(_UTC_MICROSECONDS)


def _reason(currencies: frozenset[str]) -> pl.Expr:
    """The first thing wrong with a row, null when nothing is; names columns, never values."""
    reasons: list[tuple[pl.Expr, str]] = []
    for name in _REFS:
        ref = pl.col(name)
        reasons += [
            (ref.is_null() | (ref == ""), f"{name} is missing"),
            (ref.str.contains(_CONTROL), f"{name} holds a control character"),
            (ref.str.len_bytes() > _LONGEST_REF, f"{name} is longer than {_LONGEST_REF} bytes"),
        ]
    occurred, reported = pl.col("occurred_at"), pl.col("fraud_reported_at")
    reasons += [
        (occurred.is_null(), "occurred_at is missing or not a timestamp"),
        (~occurred.dt.year().is_between(1970, 2099), "occurred_at is outside the years 1970 to 2099"),
        (pl.col("amount").is_null(), "amount is missing or not a whole number"),
        (pl.col("amount") < 0, "amount is negative"),
        (pl.col("amount") > _LARGEST_AMOUNT, "amount has more than twelve digits"),
        (pl.col("currency").is_null(), "currency is missing"),
        (~pl.col("currency").is_in(sorted(currencies)), "currency is not known"),
        (pl.col("report_given") & reported.is_null(), "fraud_reported_at is not a timestamp"),
        (reported < occurred, "fraud_reported_at is before occurred_at"),
        (reported.dt.year() > 2099, "fraud_reported_at is after the year 2099"),
    ]
    return pl.coalesce(*(pl.when(fault).then(pl.lit(reason)) for fault, reason in reasons))
