from decimal import ROUND_HALF_UP, Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_platform.oltp.fees import charge_fee, charge_fee_expression

BIGINT = 2**63 - 1


@pytest.mark.parametrize(
    ("amount", "fee"), [(0, 0), (1, 1), (30, 30), (31, 31), (32, 31), (1000, 59), (50, 31), (10_000, 320)]
)
def test_the_fee_is_2_9_percent_rounded_half_up_plus_30_but_at_most_the_amount(amount: int, fee: int) -> None:
    assert charge_fee(amount) == fee


@given(st.integers(0, BIGINT))
def test_the_fee_agrees_with_decimal_arithmetic(amount: int) -> None:
    share = (Decimal(amount) * Decimal("0.029")).quantize(Decimal(1), ROUND_HALF_UP)

    assert charge_fee(amount) == min(amount, int(share) + 30)


@given(st.lists(st.integers(0, BIGINT), min_size=1))
def test_the_fee_of_a_column_is_the_fee_of_each_value_without_overflow(amounts: list[int]) -> None:
    column = pl.DataFrame({"amount": amounts}, schema={"amount": pl.Int64})

    fees = column.select(charge_fee_expression(pl.col("amount"))).to_series().to_list()

    assert fees == [charge_fee(amount) for amount in amounts]


@given(st.integers(0, BIGINT))
def test_a_merchant_never_pays_for_being_paid(amount: int) -> None:
    assert 0 <= charge_fee(amount) <= amount
