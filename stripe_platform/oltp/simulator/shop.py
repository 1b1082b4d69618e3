"""What merchants sell: products, each with a price for once and, where they sell subscriptions, per interval."""

from dataclasses import dataclass

import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.run import DAY, Purpose
from stripe_platform.oltp.simulator.scope import Scope

INTERVALS = ("month", "year", "week")
# What an interval costs, in months' prices: who commits for a year pays for ten months.
_MONTHS_PAID = (1.0, 10.0, 0.3)
# The dearer products of a merchant, as multiples of the first.
_STEPS = (1.0, 1.8, 3.0, 4.5)


@dataclass(frozen=True)
class Shop:
    """`products`: merchant, product, name, id, created. `prices`: merchant, product, interval (-1: once), id,
    product_id, unit_amount, created.
    """

    products: pl.DataFrame
    prices: pl.DataFrame

    def recurring(self, merchant: pl.Series, product: pl.Series, interval: pl.Series) -> pl.DataFrame:
        """`id, unit_amount` of the prices asked for, in their order."""
        asked = pl.DataFrame({"merchant": merchant, "product": product, "interval": interval})
        return asked.join(
            self.prices, on=["merchant", "product", "interval"], how="left", maintain_order="left"
        ).select("id", "unit_amount")


def shop(scope: Scope) -> Shop:
    """The products and prices of the merchants in scope."""
    draws = scope.draws(Purpose.SHOP)
    rows = [
        (merchant, product, name, category, country, euros * _STEPS[product], created + DAY)
        for merchant, category, country, euros, created in scope.merchants.select(
            "merchant", "category", "country", "euros", "created"
        ).iter_rows()
        for product, name in enumerate(catalogue.CATEGORIES[category].products)
    ]
    names = ["merchant", "product", "name", "category", "country", "euros", "created"]
    products = pl.DataFrame(rows, schema=names, orient="row")
    products = products.with_columns(id=draws.keys(products["created"]))
    recurring = [number for number, category in enumerate(catalogue.CATEGORIES) if category.recurring]
    sold_again = products.filter(pl.col("category").is_in(recurring))
    priced = [products.with_columns(interval=pl.lit(-1), asked=pl.col("euros"))] + [
        sold_again.with_columns(interval=pl.lit(number), asked=pl.col("euros") * months)
        for number, months in enumerate(_MONTHS_PAID)
    ]
    prices = pl.concat(priced).rename({"id": "product_id"})
    prices = prices.with_columns(
        pl.col("interval").cast(pl.Int64),
        id=draws.keys(prices["created"]),
        unit_amount=pl.Series(catalogue.amounts(prices["asked"].to_numpy(), prices["country"].to_numpy())),
    )
    return Shop(products, prices)


def product_rows(scope: Scope, sold: Shop) -> pl.DataFrame:
    """Rows of `products`."""
    return sold.products.select(
        "id",
        scope.merchant_ids(sold.products["merchant"]).alias("merchant_id"),
        "name",
        pl.lit("txcd_99999999").alias("tax_code"),
        "created",
    )


def price_rows(scope: Scope, sold: Shop) -> pl.DataFrame:
    """Rows of `prices`."""
    again = pl.col("interval") >= 0
    names = pl.Series([*INTERVALS, None], dtype=pl.String).gather(sold.prices["interval"].replace(-1, len(INTERVALS)))
    return sold.prices.select(
        "id",
        "product_id",
        "unit_amount",
        scope.currencies(sold.prices["merchant"].to_numpy()).alias("currency"),
        pl.when(again).then(pl.lit("recurring")).otherwise(pl.lit("one_time")).alias("type"),
        names.alias("recurring_interval"),
        pl.when(again).then(pl.lit(1)).alias("interval_count"),
        pl.when(again).then(pl.lit("licensed")).alias("usage_type"),
        pl.lit("exclusive").alias("tax_behavior"),
        "created",
    )
