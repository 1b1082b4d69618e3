import pytest

from stripe_platform.money import major_units


@pytest.mark.parametrize(
    ("amount", "exponent", "text"),
    [
        (0, 2, "0.00"),
        (5, 2, "0.05"),
        (123456, 2, "1,234.56"),
        (-123456, 2, "-1,234.56"),
        (-5, 3, "-0.005"),
        (500, 0, "500"),
        (9_999_999_999_999_999, 2, "99,999,999,999,999.99"),
    ],
)
def test_minor_units_are_written_exactly_in_major_units(amount: int, exponent: int, text: str) -> None:
    assert major_units(amount, exponent) == text
