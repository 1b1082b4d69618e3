"""Published payments, through the importer's rows and the change log to the marts: each month to the cent."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.oltp.payment_rows import RowMaker, no_parties
from stripe_platform.oltp.payments_file import PaymentsFile
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform_tests.integration.test_warehouse import EPOCH, Lake, build, rows_of_build

HANDBOOK = PROJECT_ROOT.parent / "shared" / "data" / "handbook_payments.parquet"
pytestmark = pytest.mark.skipif(not HANDBOOK.is_file(), reason=f"{HANDBOOK} is not there")

MODELS = ("--select", "+daily_revenue", "+fact_charges", "--exclude-resource-type", "test", "unit_test")
# What PostgreSQL puts where the importer gives no value.
DEFAULTS = {"amount_refunded": pl.lit(0, pl.Int64), "refunded": pl.lit(False), "livemode": pl.lit(True)}
CHANGE = {
    "_op": pl.lit("c"),
    "_lsn": pl.col("_offset") + 1,
    "_xid": pl.col("_offset") + 1,
    "_committed_at": pl.lit(EPOCH),
    "_partition": pl.lit(0),
    "_snapshot": pl.lit(False),
    "_unchanged": pl.lit(None, pl.List(pl.String)),
    "_schema_version": pl.lit("1"),
}
Month = tuple[str, str]


def rows_of_importer(path: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """What the importer copies into PostgreSQL, table by table and batch by batch."""
    payments = pl.scan_parquet(path)
    first_seen = pl.concat(
        payments.group_by(ref=pl.col(f"{kind}_ref"))
        .agg(created=pl.col("occurred_at").min())
        .select(pl.lit(kind).alias("kind"), "ref", "created")
        for kind in ("merchant", "customer")
    ).collect()
    maker = RowMaker(known=no_parties(), first_seen=first_seen)
    for batch in PaymentsFile(path).batches(frozenset({"eur"})):
        assert batch.bad.is_empty()
        yield from maker.rows(batch.good)


def insert(lake: Lake, table: str, rows: pl.DataFrame) -> None:
    """Append the rows to the table's change log as inserts."""
    log = ChangeLog.existing(lake.settings, table)
    assert log is not None
    begin = log.next_offsets[0]
    schema = pa.schema([*lake.rows[table], *CHANGE_FIELDS, ("_schema_version", pa.string())])
    given = rows.with_columns(
        *(value.alias(name) for name, value in DEFAULTS.items() if name in schema.names and name not in rows.columns),
        _offset=pl.int_range(begin, begin + pl.len()),
    ).with_columns(**CHANGE)
    missing = [pl.lit(None).alias(name) for name in schema.names if name not in given.columns]
    changes = given.with_columns(missing).select(schema.names).to_arrow().cast(schema)
    log.append(changes, {0: begin + rows.height})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    lake = Lake(tmp_path_factory.mktemp("handbook"))
    lake.write("currencies", {"code": "eur", "exponent": 2})
    for table, rows in rows_of_importer(HANDBOOK):
        if table in lake.rows:
            insert(lake, table, rows)
    build(lake.settings, lake.cut(), *MODELS)
    return lake.settings


def months_of_file(time: str, *figures: pl.Expr) -> dict[Month, tuple[int, ...]]:
    """{(month of a time, currency): figures} of the payments that have it."""
    payments = pl.scan_parquet(HANDBOOK).filter(pl.col(time).is_not_null())
    month = pl.col(time).dt.strftime("%Y-%m").alias("month")
    return {
        (of, currency): tuple(rest)
        for of, currency, *rest in payments.group_by(month, "currency").agg(*figures).collect().rows()
    }


def months_of_mart(settings: Settings, mart: str, figures: str) -> dict[Month, tuple[int, ...]]:
    by_month = f"select strftime(day, '%Y-%m'), currency, {figures} from marts.{mart} group by all"
    return {(of, currency): tuple(rest) for of, currency, *rest in rows_of_build(settings, by_month)}


COUNT, AMOUNT = pl.len(), pl.col("amount").sum()


def test_the_charges_of_each_month_are_the_files_payments_to_the_cent(built: Settings) -> None:
    of_file = months_of_file(
        "occurred_at", COUNT, AMOUNT, AMOUNT.alias("captured"), pl.col("fraud_reported_at").count()
    )
    figures = "count(*), sum(amount), sum(amount_captured), count(*) filter (disputed)"
    assert len(of_file) == 6
    assert months_of_mart(built, "fact_charges", figures) == of_file


def test_the_gross_and_the_disputes_of_each_month_are_the_files_to_the_cent(built: Settings) -> None:
    gross = months_of_file("occurred_at", AMOUNT)
    disputes = months_of_file("fraud_reported_at", AMOUNT)
    expected = {
        month: (*gross.get(month, (0,)), *disputes.get(month, (0,))) for month in gross.keys() | disputes.keys()
    }
    assert months_of_mart(built, "daily_revenue", "sum(gross), sum(disputes)") == expected
