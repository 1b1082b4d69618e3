"""What an import has to do, found out before anything is written."""

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
import psycopg
from psycopg import sql

from stripe_platform.oltp.bulk import copy_in, copy_out
from stripe_platform.oltp.partitions import month_of
from stripe_platform.oltp.payments_file import PaymentsFile, content_hashes

_BAD = pl.Schema({"row": pl.UInt32(), "reason": pl.String()})
_FIRST_SEEN = pl.Schema({"kind": pl.String(), "ref": pl.String(), "created": pl.Datetime("us", "UTC")})

# One row per payment of the file that need not or must not be imported. `other` tells the clash from the mere
# repetition; a reference met twice in the file counts by its first row.
_PASSED_OVER = sql.SQL("""
SELECT candidate.row, imported.content_hash <> candidate.content_hash AS other, false AS within_file
FROM pg_temp.candidates AS candidate
INNER JOIN payments.imported_payments AS imported USING (payment_ref)
UNION ALL
SELECT repeated.row, repeated.content_hash <> repeated.first_hash AS other, true AS within_file
FROM (
    SELECT
        row, payment_ref, content_hash,
        first_value(content_hash) OVER in_order AS first_hash, row_number() OVER in_order AS place
    FROM pg_temp.candidates
    WHERE payment_ref IN (SELECT payment_ref FROM pg_temp.candidates GROUP BY payment_ref HAVING count(*) > 1)
    WINDOW in_order AS (PARTITION BY payment_ref ORDER BY row)
) AS repeated
WHERE repeated.place > 1
    AND NOT EXISTS (
        SELECT FROM payments.imported_payments AS imported WHERE imported.payment_ref = repeated.payment_ref
    )
""")


@dataclass(frozen=True)
class Fault:
    """A bad row, by its number in the file (the first is 1), and what is wrong with it; never its values."""

    row: int
    reason: str


@dataclass(frozen=True)
class ImportPlan:
    """The verdict on a whole file.

    `bad` counts all bad rows and `faults` are the first of them; `clashes` are the bad rows (`row`,
    `reason`) that only the comparison with other rows shows; `months` are those that the payments and
    reports fall in.
    """

    rows: int
    bad: int
    faults: tuple[Fault, ...]
    clashes: pl.DataFrame
    currencies: frozenset[str]
    months: frozenset[datetime]
    first_seen: pl.DataFrame
    known_parties: pl.DataFrame
    passed_over: pl.Series

    def to_import(self, good: pl.DataFrame) -> pl.DataFrame:
        """Of a batch's good rows those that are neither imported already nor in conflict with others."""
        here = self.passed_over.filter(self.passed_over.is_between(good["row"].min(), good["row"].max()))
        return good.filter(~pl.col("row").is_in(here.implode()))


@dataclass
class _Findings:
    shown: int
    bad: int = 0
    faults: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_BAD))
    months: set[datetime] = field(default_factory=set)
    first_seen: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_FIRST_SEEN))

    def add_bad(self, bad: pl.DataFrame) -> None:
        self.bad += bad.height
        if bad.height:
            self.faults = pl.concat([self.faults, bad]).sort("row").head(self.shown)

    def add_good(self, good: pl.DataFrame) -> None:
        for name in ("occurred_at", "fraud_reported_at"):
            months = good.select(pl.col(name).drop_nulls().dt.truncate("1mo").unique()).to_series()
            self.months.update(month_of(month) for month in months)
        met = [
            good.select(pl.lit(kind).alias("kind"), ref=f"{kind}_ref", created="occurred_at")
            for kind in ("merchant", "customer")
        ]
        self.first_seen = pl.concat([self.first_seen, *met]).group_by("kind", "ref").agg(pl.col("created").min())


def plan_import(connection: psycopg.Connection, file: PaymentsFile, rows: int, *, shown: int) -> ImportPlan:
    """Read the whole file and compare it with itself and with what was imported before; writes temporary
    tables only.

    The references wait in PostgreSQL, so memory is bounded by a batch and by the number of parties.
    """
    currencies = frozenset(code for (code,) in connection.execute("SELECT code FROM payments.currencies"))
    connection.execute(
        "CREATE TEMPORARY TABLE candidates "
        "(row bigint NOT NULL, payment_ref text NOT NULL, content_hash bytea NOT NULL)"
    )
    findings = _Findings(shown)
    for batch in file.batches(currencies):
        findings.add_bad(batch.bad)
        if batch.good.height:
            findings.add_good(batch.good)
            hashes = pl.lit("\\x") + content_hashes(batch.good)
            copy_in(
                connection,
                "candidates",
                batch.good.select("row", "payment_ref", hashes.alias("content_hash")),
                schema="pg_temp",
            )
    passed_over, clashes = _compare(connection)
    findings.add_bad(clashes)
    return ImportPlan(
        rows=rows,
        bad=findings.bad,
        faults=tuple(Fault(row, reason) for row, reason in findings.faults.iter_rows()),
        clashes=clashes,
        currencies=currencies,
        months=frozenset(findings.months),
        first_seen=findings.first_seen,
        known_parties=_known_parties(connection),
        passed_over=passed_over,
    )


def _compare(connection: psycopg.Connection) -> tuple[pl.Series, pl.DataFrame]:
    connection.execute("ANALYZE pg_temp.candidates")
    found = copy_out(connection, _PASSED_OVER, {"row": pl.UInt32, "other": pl.String, "within_file": pl.String})
    connection.execute("DROP TABLE pg_temp.candidates")
    reason = (
        pl.when(pl.col("within_file") == "t")
        .then(pl.lit("payment_ref stands in an earlier row with other content"))
        .otherwise(pl.lit("payment_ref was imported before with other content"))
    )
    clashes = found.filter(pl.col("other") == "t").select("row", reason.alias("reason"))
    return found["row"], clashes


def _known_parties(connection: psycopg.Connection) -> pl.DataFrame:
    query = sql.SQL("SELECT kind, ref, replace(id::text, '-', '') AS id FROM payments.imported_parties")
    return copy_out(connection, query, {"kind": pl.String, "ref": pl.String, "id": pl.String})
