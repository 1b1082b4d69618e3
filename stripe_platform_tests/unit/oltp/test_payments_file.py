from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from stripe_platform.oltp.payments_file import COLUMNS, PaymentsFile, PaymentsFileError, content_hashes

KNOWN = frozenset({"eur", "jpy"})
HEADER = ",".join(COLUMNS)
GOOD = "1,2018-04-01T00:00:31Z,c1,m1,5716,eur,"


def csv(tmp_path: Path, *rows: str) -> PaymentsFile:
    path = tmp_path / "payments.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return PaymentsFile(path)


def faults(file: PaymentsFile) -> list[tuple[int, str]]:
    return [fault for batch in file.batches(KNOWN) for fault in batch.bad.rows()]


def payments(file: PaymentsFile) -> pl.DataFrame:
    return pl.concat([batch.good for batch in file.batches(KNOWN)])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",2018-04-01T00:00:31Z,c1,m1,5716,eur,", "payment_ref is missing"),
        ("1,,c1,m1,5716,eur,", "occurred_at is missing or not a timestamp"),
        ("1,yesterday,c1,m1,5716,eur,", "occurred_at is missing or not a timestamp"),
        ("1,1969-12-31T23:59:59Z,c1,m1,5716,eur,", "occurred_at is outside the years 1970 to 2099"),
        ("1,2018-04-01T00:00:31Z,,m1,5716,eur,", "customer_ref is missing"),
        ("1,2018-04-01T00:00:31Z,c1,,5716,eur,", "merchant_ref is missing"),
        ("1,2018-04-01T00:00:31Z,c1,m1,,eur,", "amount is missing or not a whole number"),
        ("1,2018-04-01T00:00:31Z,c1,m1,57.16,eur,", "amount is missing or not a whole number"),
        ("1,2018-04-01T00:00:31Z,c1,m1,9223372036854775808,eur,", "amount is missing or not a whole number"),
        ("1,2018-04-01T00:00:31Z,c1,m1,-1,eur,", "amount is negative"),
        ("1,2018-04-01T00:00:31Z,c1,m1,1000000000000,eur,", "amount has more than twelve digits"),
        ("1,2018-04-01T00:00:31Z,c1,m1,9223372036854775807,eur,", "amount has more than twelve digits"),
        ("1,2018-04-01T00:00:31Z,c1,m1,5716,,", "currency is missing"),
        ("1,2018-04-01T00:00:31Z,c1,m1,5716,EUR,", "currency is not known"),
        ("1,2018-04-01T00:00:31Z,c1,m1,5716,eur,later", "fraud_reported_at is not a timestamp"),
        (
            "1,2018-04-01T00:00:31Z,c1,m1,5716,eur,2018-04-01T00:00:30Z",
            "fraud_reported_at is before occurred_at",
        ),
        ('1,2018-04-01T00:00:31Z,"c\t1",m1,5716,eur,', "customer_ref holds a control character"),
        (f"{'1' * 256},2018-04-01T00:00:31Z,c1,m1,5716,eur,", "payment_ref is longer than 255 bytes"),
    ],
)
def test_a_bad_row_is_found_with_its_number_and_reason(tmp_path: Path, row: str, reason: str) -> None:
    assert faults(csv(tmp_path, GOOD, row)) == [(2, reason)]


def test_an_amount_of_twelve_digits_is_good(tmp_path: Path) -> None:
    assert payments(csv(tmp_path, GOOD.replace("5716", "9" * 12)))["amount"].to_list() == [999_999_999_999]


@pytest.mark.parametrize(
    "written",
    [
        "2018-04-01T00:00:31Z",
        "2018-04-01 00:00:31",
        "2018-04-01 00:00:31.000000",
        "2018-04-01T02:00:31+02:00",
        "2018-03-31T19:30:31-0430",
        "2018-04-01 00:00:31 UTC",
    ],
)
def test_one_instant_may_be_written_in_several_ways(tmp_path: Path, written: str) -> None:
    read = payments(csv(tmp_path, f"1,{written},c1,m1,5716,eur,"))

    assert read["occurred_at"].to_list() == [datetime(2018, 4, 1, 0, 0, 31, tzinfo=UTC)]


def test_ways_of_writing_time_may_be_mixed_in_one_file(tmp_path: Path) -> None:
    file = csv(tmp_path, GOOD, "2,2018-04-01 00:00:31.5+01:00,c1,m1,1,eur,2018-05-01 00:00:00")

    assert faults(file) == []


def test_parquet_and_csv_of_the_same_payments_have_equal_content_hashes(tmp_path: Path) -> None:
    from_csv = payments(csv(tmp_path, "7,2018-04-01T00:00:31.25Z,c1,m1,5716,jpy,2018-04-08T00:00:00Z"))
    path = tmp_path / "payments.parquet"
    from_csv.drop("row").with_columns(
        pl.col("payment_ref").cast(pl.Int64),
        # Without a zone a time is in UTC, and a finer unit adds nothing.
        pl.col("occurred_at").dt.replace_time_zone(None).dt.cast_time_unit("ns"),
    ).write_parquet(path)

    assert content_hashes(payments(PaymentsFile(path))).equals(content_hashes(from_csv))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_change_of_any_field_changes_the_content_hash(tmp_path: Path, column: str) -> None:
    fields = {
        "payment_ref": "2",
        "occurred_at": "2018-04-01T00:00:32Z",
        "customer_ref": "c2",
        "merchant_ref": "m2",
        "amount": "5717",
        "currency": "jpy",
        "fraud_reported_at": "2018-04-08T00:00:00Z",
    }
    original = dict(zip(COLUMNS, GOOD.split(","), strict=True))
    changed = ",".join((original | {column: fields[column]}).values())

    hashes = content_hashes(payments(csv(tmp_path, GOOD, changed)))

    assert hashes.n_unique() == 2


def test_every_row_of_several_batches_is_read_once_in_order_and_numbered_from_1(tmp_path: Path) -> None:
    path = tmp_path / "payments.parquet"
    count = 120_000
    pl.select(
        payment_ref=pl.int_range(count),
        occurred_at=pl.lit(datetime(2018, 4, 1, tzinfo=UTC)),
        customer_ref=pl.lit("c1"),
        merchant_ref=pl.lit("m1"),
        amount=pl.int_range(count),
        currency=pl.lit("eur"),
        fraud_reported_at=pl.lit(None, dtype=pl.Datetime("us", "UTC")),
    ).write_parquet(path, row_group_size=7_000)

    batches = list(PaymentsFile(path).batches(KNOWN))

    assert len(batches) > 1
    read = pl.concat([batch.good for batch in batches])
    assert read["row"].to_list() == list(range(1, count + 1))
    assert read["amount"].to_list() == list(range(count))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PaymentsFileError, match=r"nowhere\.parquet: does not exist"):
        PaymentsFile(tmp_path / "nowhere.parquet").rows()


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text("payment_ref,amount\n1,2\n")

    with pytest.raises(PaymentsFileError, match="has no column occurred_at, customer_ref"):
        PaymentsFile(path).rows()


def test_a_column_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "payments.parquet"
    payments(csv(tmp_path, GOOD)).drop("row").with_columns(pl.col("amount") / 100).write_parquet(path)

    with pytest.raises(PaymentsFileError, match=r"wrong type: amount \(Float64\)"):
        PaymentsFile(path).rows()


def test_a_file_that_is_not_what_its_name_says_is_refused_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "payments.parquet"
    path.write_text("4242424242424242")

    with pytest.raises(PaymentsFileError, match="cannot be read") as caught:
        PaymentsFile(path).rows()
    assert "4242" not in str(caught.value)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PaymentsFileError, match=r"neither \.parquet nor \.csv"):
        PaymentsFile(tmp_path / "payments.xlsx").rows()
