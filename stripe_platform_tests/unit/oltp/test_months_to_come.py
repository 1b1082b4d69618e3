from datetime import UTC, datetime

import pytest

from stripe_platform.oltp.archive import KEPT_MONTHS
from stripe_platform.oltp.partitions import months_to_come
from stripe_platform.oltp.tables import TABLES_BY_NAME


@pytest.mark.parametrize(
    ("now", "months"),
    [
        (datetime(2031, 11, 30, 23, 59, tzinfo=UTC), [(2031, 11), (2031, 12), (2032, 1), (2032, 2)]),
        (datetime(2031, 12, 1, tzinfo=UTC), [(2031, 12), (2032, 1), (2032, 2), (2032, 3)]),
        (datetime(2032, 1, 31, 12, tzinfo=UTC), [(2032, 1), (2032, 2), (2032, 3), (2032, 4)]),
    ],
)
def test_this_month_and_three_more_are_to_come_across_the_years_end(
    now: datetime, months: list[tuple[int, int]]
) -> None:
    assert [(month.year, month.month) for month in months_to_come(now)] == months


def test_financial_records_are_kept_for_ever_and_only_monthly_tables_have_a_retention() -> None:
    assert KEPT_MONTHS.keys().isdisjoint({"charges", "balance_transactions"})
    assert all(TABLES_BY_NAME[table].monthly for table in KEPT_MONTHS)
