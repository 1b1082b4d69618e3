from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from stripe_platform.oltp.payments_file import PaymentsFile
from stripe_platform.oltp.sample import DAYS, UNTIL, write_sample

KNOWN = frozenset({"eur", "usd", "gbp", "jpy", "kwd"})


def test_the_same_arguments_write_the_same_payments_and_another_seed_others(tmp_path: Path) -> None:
    frames = []
    for number, seed in enumerate((1, 1, 2)):
        write_sample(tmp_path / f"{number}.parquet", payments=100, seed=seed)
        frames.append(pl.read_parquet(tmp_path / f"{number}.parquet"))

    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])
    assert not set(frames[0]["payment_ref"]) & set(frames[2]["payment_ref"])


def test_every_row_of_a_sample_can_be_imported_whether_parquet_or_csv(tmp_path: Path) -> None:
    read = []
    for name in ("sample.parquet", "sample.csv"):
        write_sample(tmp_path / "made" / name)
        batches = list(PaymentsFile(tmp_path / "made" / name).batches(KNOWN))
        assert sum(batch.bad.height for batch in batches) == 0
        read.append(pl.concat([batch.good for batch in batches]))

    assert read[0].height == 2000
    assert read[0].equals(read[1])


def test_a_sample_looks_like_payments(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.parquet")
    sample = pl.read_parquet(tmp_path / "sample.parquet")
    frauds = sample.filter(pl.col("fraud_reported_at").is_not_null())
    hours = sample["occurred_at"].dt.hour()

    assert set(sample["currency"]) == KNOWN
    assert sample["occurred_at"].is_sorted()
    assert sample["occurred_at"].min() >= UNTIL - timedelta(days=DAYS)  # type: ignore[operator]
    assert sample["occurred_at"].max() < UNTIL  # type: ignore[operator]
    assert sample["amount"].min() > 0  # type: ignore[operator]
    assert sample.filter(currency="kwd")["amount"].to_numpy().__mod__(10).sum() == 0
    assert frauds.height == 20
    assert (frauds["fraud_reported_at"] > frauds["occurred_at"]).all()
    assert hours.is_between(0, 5).sum() < hours.is_between(12, 17).sum() / 3


@pytest.mark.parametrize(("name", "writer"), [("sample.parquet", "write_parquet"), ("sample.csv", "write_csv")])
def test_a_sample_cut_short_leaves_the_earlier_file_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, writer: str
) -> None:
    def cut_short(frame: pl.DataFrame, path: Path, **options: str) -> None:
        path.write_text("half of it")
        raise OSError("no space left")

    write_sample(tmp_path / name, payments=10)
    earlier = (tmp_path / name).read_bytes()
    monkeypatch.setattr(pl.DataFrame, writer, cut_short)
    for path in (tmp_path / name, tmp_path / "new" / name):
        with pytest.raises(OSError, match="no space left"):
            write_sample(path, payments=20)

    assert (tmp_path / name).read_bytes() == earlier
    assert not (tmp_path / "new" / name).exists()


def test_a_sample_can_end_at_another_day(tmp_path: Path) -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    write_sample(tmp_path / "sample.parquet", payments=10, until=until)

    assert pl.read_parquet(tmp_path / "sample.parquet")["occurred_at"].max() < until  # type: ignore[operator]
