"""Rows of merchants, customers, their addresses, cards and payment methods; whoever is named here does not exist."""

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.population import Population
from stripe_platform.oltp.simulator.run import DAY, HOUR, Draws, Ints, Run, mixed
from stripe_platform.oltp.simulator.scope import Scope, fingerprints
from stripe_platform.oltp.simulator.wishes import GUEST

_NAMES = ("Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord", "Grove", "Harbor", "Iris", "Juniper")
_SURNAMES = ("Example", "Sample", "Specimen", "Placeholder", "Mock", "Pattern", "Model", "Sketch")
_TOWNS = ("Sampleton", "Exampleville", "Mockford", "Patternburg", "Specimen Bay")
_WALLETS = ("apple_pay", "google_pay", "link")
_BILLED_TO = 0.7
_SHIPPED_TO = 0.4
_LEAVES = 0.03
_CHECKS = ("pass", "fail", "unavailable")


def merchant_rows(scope: Scope) -> pl.DataFrame:
    """Rows of `merchants`."""
    merchants = scope.merchants
    categories = [catalogue.CATEGORIES[number] for number in merchants["category"].to_list()]
    country = merchants["country"].to_numpy()
    names = [
        f"{_NAMES[(number * 7 + scope.run.seed) % len(_NAMES)]} {category.name} {number + 1}"
        for number, category in zip(merchants["merchant"].to_list(), categories, strict=True)
    ]
    return merchants.select(
        "id",
        pl.Series(
            "business_type", ["individual" if number % 5 == 0 else "company" for number in merchants["merchant"]]
        ),
        pl.Series("business_name", names),
        pl.Series("mcc", [category.mcc for category in categories]),
        pl.Series("country", catalogue.COUNTRY_CODES[country], dtype=pl.String),
        pl.Series("default_currency", catalogue.CURRENCY_CODES[country], dtype=pl.String),
        pl.Series("statement_descriptor", [name.upper()[:22] for name in names]),
        "created",
    )


def customer_rows(scope: Scope, draws: Draws, last_seen: Ints, delinquent: Ints) -> pl.DataFrame:
    """Rows of `customers`; `last_seen` is the moment of the last that each has to do with, -1: nothing yet."""
    customers = scope.customers
    number = customers["number"].to_numpy()
    name, surname = (mixed(customers["person"].to_numpy(), salt) for salt in (11, 12))
    known = pl.DataFrame(
        {
            "first": np.array(_NAMES)[name % len(_NAMES)],
            "last": np.array(_SURNAMES)[surname % len(_SURNAMES)],
            "person": customers["person"],
            "line": mixed(customers["person"].to_numpy(), 13) % 100,
        }
    )
    left_at = np.maximum(last_seen, customers["created"].to_numpy()) + draws.between(HOUR, 9 * DAY, len(number))
    leaves = draws.happens(_LEAVES, len(number)) & (left_at < scope.run.end)
    return customers.select(
        "id",
        scope.merchant_ids(customers["merchant"]).alias("merchant_id"),
        known.select(
            pl.format(
                "{}.{}.{}@example.com", pl.col("first").str.to_lowercase(), pl.col("last").str.to_lowercase(), "person"
            )
        )
        .to_series()
        .alias("email"),
        known.select(pl.format("{} {}", "first", "last")).to_series().alias("name"),
        # 555-0100 to 555-0199 are kept for stories.
        known.select(pl.format("+120255501{}", pl.col("line").cast(pl.String).str.zfill(2))).to_series().alias("phone"),
        pl.Series("country", catalogue.COUNTRY_CODES[customers["country"].to_numpy()], dtype=pl.String),
        scope.currencies(customers["merchant"].to_numpy()).alias("currency"),
        pl.Series("delinquent", np.isin(number, delinquent)),
        pl.format('{{"shop_ref":"C-{}"}}', "number").alias("metadata"),
        pl.Series("deleted_at", np.where(leaves, left_at, -1)).replace(-1, None),
        "created",
    )


def address_rows(scope: Scope, draws: Draws) -> pl.DataFrame:
    """Rows of `addresses`."""
    customers = scope.customers
    made = []
    for kind, share in (("billing", _BILLED_TO), ("shipping", _SHIPPED_TO)):
        mine = customers.filter(pl.Series(draws.happens(share, customers.height)))
        house = mixed(mine["person"].to_numpy(), 14)
        made.append(
            mine.select(
                pl.col("id").alias("customer_id"),
                pl.lit(kind).alias("kind"),
                pl.Series(
                    "line1", [f"{1 + number % 180} Example Street" for number in house.tolist()], dtype=pl.String
                ),
                pl.Series("city", np.array(_TOWNS)[house % len(_TOWNS)], dtype=pl.String),
                pl.Series("postal_code", [f"{number % 100_000:05}" for number in house.tolist()], dtype=pl.String),
                pl.Series("country", catalogue.COUNTRY_CODES[mine["country"].to_numpy()], dtype=pl.String),
                "created",
            )
        )
    addresses = pl.concat(made)
    return addresses.with_columns(id=draws.keys(addresses["created"]))


def card_rows(run: Run, population: Population) -> pl.DataFrame:
    """Rows of `card_fingerprints`: the cards that anybody uses."""
    cards = population.cards.with_row_index("card").filter(pl.col("created") < run.end)
    return cards.select(
        fingerprints(population.cards, cards["card"].to_numpy()).alias("fingerprint"),
        "brand",
        "funding",
        pl.Series("issuer_country", catalogue.COUNTRY_CODES[cards["country"].to_numpy()], dtype=pl.String),
        pl.col("bin6").cast(pl.String),
        pl.col("last4").cast(pl.String).str.zfill(4),
        "created",
    )


def with_methods(scope: Scope, draws: Draws, wished: pl.DataFrame) -> pl.DataFrame:
    """The payments with `customer_id` and `method_id`: that of the customer, or one of its own for a guest."""
    guest = (wished["customer"] == GUEST).to_numpy()
    place = pl.Series(np.where(guest, 0, wished["customer"].to_numpy() - scope.first_customer[0]))
    own = draws.keys(wished["at"])
    return wished.with_columns(
        customer_id=scope.customers["id"].gather(place).set(pl.Series(guest), None),
        method_id=pl.select(
            pl.when(pl.Series(guest)).then(own).otherwise(scope.customers["method_id"].gather(place))
        ).to_series(),
    )


def method_rows(scope: Scope, draws: Draws, wished: pl.DataFrame) -> pl.DataFrame:
    """Rows of `payment_methods`: one for each customer, one for each payment of a guest."""
    guests = wished.filter(pl.col("customer") == GUEST)
    customers = scope.customers
    methods = pl.concat(
        [
            customers.select(pl.col("method_id").alias("id"), pl.col("id").alias("customer_id"), "card", "created"),
            guests.select(pl.col("method_id").alias("id"), "customer_id", "card", pl.col("at").alias("created")),
        ]
    )
    count = methods.height
    expires = mixed(methods["card"].to_numpy(), 15)
    wallet = pl.Series(np.array(_WALLETS)[draws.between(0, 3, count)], dtype=pl.String)
    until = scope.run.until.year
    check = np.array(_CHECKS)[draws.pick((0.93, 0.03, 0.04), count)]
    return methods.select(
        "id",
        "customer_id",
        scope.fingerprints(methods["card"]).alias("card_fingerprint"),
        pl.Series("exp_month", 1 + expires % 12),
        pl.Series("exp_year", until + 1 + expires // 16 % 4),
        pl.Series("cvc_check", check, dtype=pl.String),
        pl.Series("address_postal_code_check", np.roll(check, 1), dtype=pl.String),
        wallet.set(pl.Series(~draws.happens(0.2, count)), None).alias("wallet"),
        pl.Series("three_d_secure_supported", mixed(methods["card"].to_numpy(), 16) % 10 < 8),
        "created",
    )
