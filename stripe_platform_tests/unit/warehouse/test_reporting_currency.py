from decimal import Decimal

import duckdb
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from stripe_platform.features.exchange import conversion
from stripe_platform.warehouse.model_code import PROJECT_DIR

MACROS = Environment().from_string((PROJECT_DIR / "macros/reporting_currency.sql").read_text()).module  # noqa: S701
CONVERT = f"select {MACROS.in_reporting_currency('amount', 'rate', 'exponent')} from given"  # type: ignore[attr-defined]
# Up to a million for one: of large amounts the result is then beyond 64 bits.
RATES = st.integers(1, 10**16).map(lambda digits: Decimal(digits).scaleb(-10))
# So often that amounts lie just between two.
HALVES = st.integers(1, 2_000).map(lambda digits: Decimal(digits) / 200)


@given(amount=st.integers(-(10**12), 10**12), rate=st.one_of(RATES, HALVES), exponent=st.sampled_from((0, 2, 3)))
def test_the_marts_convert_to_the_cent_as_the_features_do(amount: int, rate: Decimal, exponent: int) -> None:
    given = "with given as (select $amount::bigint as amount, $rate::decimal(20, 10) as rate, $exponent as exponent)"
    values = {"amount": amount, "rate": rate, "exponent": exponent}

    (converted,) = duckdb.execute(f"{given} {CONVERT}", values).fetchall()

    assert converted == (conversion({"day": 0, "rate": f"{rate:f}"}, exponent).convert(amount),)


def test_without_a_rate_there_is_no_converted_amount() -> None:
    given = "with given as (select 1::bigint as amount, null::decimal(20, 10) as rate, null::smallint as exponent)"

    assert duckdb.execute(f"{given} {CONVERT}").fetchall() == [(None,)]
