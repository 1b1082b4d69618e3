from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stripe_platform.cdc.cut import Cut
from stripe_platform.settings import Settings
from stripe_platform.warehouse.change_log_views import RawNotBegun, RawTable, create_views, read_raw

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("rate", pa.decimal128(20, 10)),
        ("created", pa.timestamp("us", tz="UTC")),
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_unchanged", pa.list_(pa.string())),
        ("note", pa.string()),
    ]
)


def cut(**offsets: dict[int, int]) -> Cut:
    return Cut("a-cut", datetime(2026, 1, 1, tzinfo=UTC), offsets, {})


def rows(raw: RawTable, at: Cut) -> list[tuple[int, int]]:
    with duckdb.connect() as connection:
        create_views(connection, {"charges": raw}, at)
        return connection.execute("select _partition, _offset from raw.charges order by all").fetchall()


@pytest.fixture
def raw(tmp_path: Path) -> RawTable:
    """Three changes in each of two partitions, the later file with one more column and a quote in its name."""
    files = [str(tmp_path / "first.parquet"), str(tmp_path / "it's later.parquet")]
    pq.write_table(pa.table({"_partition": [0, 0, 1, 1], "_offset": [0, 1, 0, 1]}), files[0])
    pq.write_table(pa.table({"_partition": [0, 1], "_offset": [2, 2], "note": ["new", "new"]}), files[1])
    return RawTable("a", {0: 3, 1: 3}, {}, files, SCHEMA)


def test_a_view_ends_at_the_cut_in_every_partition(raw: RawTable) -> None:
    assert rows(raw, cut(charges={0: 1, 1: 3})) == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_a_partition_that_the_cut_does_not_name_is_not_read(raw: RawTable) -> None:
    assert rows(raw, cut(charges={1: 1})) == [(1, 0)]
    assert rows(raw, cut()) == []


def test_a_column_that_only_later_files_have_is_null_before(raw: RawTable) -> None:
    with duckdb.connect() as connection:
        create_views(connection, {"charges": raw}, cut(charges={0: 3, 1: 3}))
        notes = connection.execute("select _offset, any_value(note) from raw.charges group by 1 order by 1").fetchall()
    assert notes == [(0, None), (1, None), (2, "new")]


def test_a_column_that_no_file_has_is_null_and_of_the_log_s_type(raw: RawTable) -> None:
    with duckdb.connect() as connection:
        create_views(connection, {"charges": raw}, cut(charges={0: 3, 1: 3}))
        described = {name: kind for name, kind, *_ in connection.execute("describe raw.charges").fetchall()}
        rates = connection.execute("select distinct rate, created from raw.charges").fetchall()
    assert list(described) == SCHEMA.names
    assert (described["rate"], described["created"]) == ("DECIMAL(20,10)", "TIMESTAMP WITH TIME ZONE")
    assert rates == [(None, None)]


def test_a_log_without_files_gives_an_empty_view_of_its_types() -> None:
    with duckdb.connect() as connection:
        create_views(connection, {"charges": RawTable("a", {0: 0}, {}, [], SCHEMA)}, cut(charges={0: 0}))
        described = connection.execute("describe raw.charges").fetchall()
        assert connection.execute("select count(*) from raw.charges").fetchall() == [(0,)]
    assert {name: kind for name, kind, *_ in described} == {
        "id": "VARCHAR",
        "rate": "DECIMAL(20,10)",
        "created": "TIMESTAMP WITH TIME ZONE",
        "_partition": "INTEGER",
        "_offset": "BIGINT",
        "_unchanged": "VARCHAR[]",
        "note": "VARCHAR",
    }


def test_a_log_that_was_never_drained_is_named(tmp_path: Path) -> None:
    with pytest.raises(RawNotBegun, match="raw/charges does not exist yet"):
        read_raw(Settings(stripe_platform_home=tmp_path), "charges")
