"""What a card payment costs the merchant."""

import polars as pl

PERMILLE = 29
FIXED = 30
DISPUTE_FEE = 1500


def charge_fee(amount: int) -> int:
    """2.9 % of the amount, rounded half up, plus 30; never more than the amount itself. All in minor units."""
    return min(amount, (amount * PERMILLE + 500) // 1000 + FIXED)


def charge_fee_expression(amount: pl.Expr) -> pl.Expr:
    """`charge_fee` over a column of int64."""
    # Thousands and rest apart: amount * 29 would overflow for the largest amounts that PostgreSQL holds.
    share = amount // 1000 * PERMILLE + (amount % 1000 * PERMILLE + 500) // 1000
    return pl.min_horizontal(amount, share + FIXED)
