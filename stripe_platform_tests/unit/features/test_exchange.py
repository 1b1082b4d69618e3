from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from hypothesis import example, given
from hypothesis import strategies as st

from stripe_platform.features.exchange import LARGEST_AMOUNT, conversion, day_of

RATES = st.integers(1, 10**20 - 1).map(lambda digits: f"{Decimal(digits).scaleb(-10):f}")


@given(amount=st.integers(0, 2**63 - 1), rate=RATES, exponent=st.sampled_from((0, 2, 3)))
@example(amount=1, rate="0.5000000000", exponent=2)
@example(amount=3, rate="0.5000000000", exponent=2)
@example(amount=5, rate="1.0000000000", exponent=3)
def test_a_converted_amount_is_exact_and_rounded_half_to_even(amount: int, rate: str, exponent: int) -> None:
    converted = conversion({"day": 1, "rate": rate}, exponent).convert(amount)

    wanted = _rounded(amount, rate, exponent)
    assert converted == (wanted if wanted <= LARGEST_AMOUNT else None)


def _rounded(amount: int, rate: str, exponent: int) -> int:
    with localcontext() as context:
        context.prec = 100
        exact = Decimal(amount) * Decimal(rate) * Decimal(10) ** (2 - exponent)
        return int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))


def test_a_payment_belongs_to_the_utc_day_of_its_microsecond() -> None:
    midnight = 20_000 * 86_400_000_000

    assert [day_of(midnight - 1), day_of(midnight), day_of(-1)] == [19_999, 20_000, -1]
