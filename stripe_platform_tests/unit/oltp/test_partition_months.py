from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from stripe_platform.oltp.partitions import month_of, months_between, next_month, partition_name

moments = st.datetimes(datetime(1970, 1, 2), datetime(2099, 1, 1), timezones=st.just(UTC))


@given(moments)
def test_every_moment_lies_in_its_month_and_before_the_next(moment: datetime) -> None:
    month = month_of(moment)

    assert month <= moment < next_month(month)
    assert month_of(next_month(month) - timedelta(microseconds=1)) == month


def test_the_month_is_that_of_utc_wherever_the_moment_was_written() -> None:
    new_year_in_tokyo = datetime(2019, 1, 1, 3, tzinfo=timezone(timedelta(hours=9)))

    assert month_of(new_year_in_tokyo) == datetime(2018, 12, 1, tzinfo=UTC)


def test_a_range_over_new_year_names_each_month_once() -> None:
    months = months_between(datetime(2018, 11, 30, tzinfo=UTC), datetime(2019, 2, 1, tzinfo=UTC))

    assert [partition_name("charges", month) for month in months] == [
        "charges_2018_11",
        "charges_2018_12",
        "charges_2019_01",
        "charges_2019_02",
    ]
