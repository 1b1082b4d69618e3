"""Amounts of money for people: minor units as decimals."""

# All `_reporting` columns of the marts, and all features, are in minor units of it.
REPORTING_CURRENCY = "eur"


def major_units(amount: int, exponent: int) -> str:
    """`amount` minor units as a decimal text: (-123456, 2) is "-1,234.56"."""
    whole, fraction = divmod(abs(amount), 10**exponent)
    text = f"{whole:,}" + (f".{fraction:0{exponent}d}" if exponent else "")
    return f"-{text}" if amount < 0 else text
