import uuid
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_platform.oltp.keys import uuid_v7_keys

moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))


def column_of(times: list[datetime]) -> pl.Series:
    return pl.Series(times, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")


@given(st.lists(moments, min_size=1, max_size=20))
def test_a_key_is_a_uuid_of_version_7_that_holds_the_millisecond_of_its_time(times: list[datetime]) -> None:
    keys = [uuid.UUID(key) for key in uuid_v7_keys(column_of(times), pl.Series(range(len(times))))]

    for key, time in zip(keys, times, strict=True):
        assert key.version == 7
        assert key.variant == uuid.RFC_4122
        assert key.int >> 80 == int(pl.Series([time]).dt.epoch("ms")[0])


@given(st.lists(st.tuples(moments, st.integers(0, 2**26 - 1)), min_size=2, max_size=20, unique=True))
def test_keys_sort_by_millisecond_then_by_the_order_given(rows: list[tuple[datetime, int]]) -> None:
    keys = uuid_v7_keys(column_of([time for time, _ in rows]), pl.Series([order for _, order in rows]))
    milliseconds = column_of([time for time, _ in rows]).dt.epoch("ms")

    expected = sorted(range(len(rows)), key=lambda row: (milliseconds[row], rows[row][1], keys[row]))

    assert sorted(range(len(rows)), key=lambda row: keys[row]) == expected


def test_two_keys_of_one_time_and_place_differ() -> None:
    times = column_of([datetime(2018, 4, 1)] * 1000)

    assert uuid_v7_keys(times, pl.Series([0] * 1000)).n_unique() == 1000


def test_the_same_state_of_a_generator_makes_the_same_keys_and_another_others() -> None:
    times, order = column_of([datetime(2018, 4, 1)] * 100), pl.Series(range(100))

    first, again, other = (uuid_v7_keys(times, order, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert first.equals(again)
    assert not set(first) & set(other)
    assert {uuid.UUID(key).version for key in first} == {7}


def test_more_rows_of_one_instant_than_the_counter_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of one instant"):
        uuid_v7_keys(column_of([datetime(2018, 4, 1, tzinfo=UTC).replace(tzinfo=None)]), pl.Series([2**26]))


def test_no_rows_need_no_keys() -> None:
    assert uuid_v7_keys(column_of([]), pl.Series([], dtype=pl.Int64)).len() == 0
