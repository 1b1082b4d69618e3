"""What the simulated world is made of: businesses, countries, currencies and what they do at which hour."""

from dataclasses import dataclass

import numpy as np

from stripe_platform.oltp.simulator.run import Floats, Ints

# Payments per hour of the local day.
_SHOPS = (1, 1, 1, 1, 1, 2, 4, 7, 10, 12, 13, 14, 14, 13, 13, 14, 16, 17, 14, 9, 6, 4, 2, 1)
_MEALS = (2, 1, 1, 1, 1, 2, 5, 8, 6, 5, 8, 15, 20, 14, 7, 6, 8, 14, 20, 18, 12, 8, 5, 3)
_ONLINE = (4, 2, 2, 1, 1, 2, 4, 6, 8, 9, 10, 10, 11, 10, 9, 9, 10, 11, 13, 16, 18, 17, 12, 7)
_TRAVEL = (3, 2, 1, 1, 2, 5, 10, 14, 13, 11, 10, 9, 9, 9, 10, 11, 14, 15, 12, 9, 7, 6, 5, 4)


@dataclass(frozen=True)
class Category:
    """A kind of business: its merchant category code, what it sells, and how it is paid.

    `ticket` is the median payment in euros and `spread` the spread of its logarithm; `weekend` the payments of a
    Saturday or Sunday for one of a weekday; `recurring` says that it sells subscriptions; `by_hand` is the share of
    payments authorized first and captured later; `share` how common the business is.
    """

    mcc: str
    name: str
    ticket: float
    spread: float
    hours: tuple[int, ...]
    weekend: float
    share: float
    products: tuple[str, ...]
    recurring: bool = False
    by_hand: float = 0.0


@dataclass(frozen=True)
class Currency:
    """`minor` units make one major unit, `multiple` divides every amount, `rate` is what one euro buys."""

    code: str
    minor: int
    multiple: int
    rate: float


@dataclass(frozen=True)
class Country:
    """Where merchants and customers live; `prices` compares with Germany, `offset` is the hours before UTC."""

    iso2: str
    currency: Currency
    prices: float
    share: float
    offset: int
    european: bool = False
    tax: float = 0.0


CATEGORIES = (
    Category("5411", "Grocery", 24, 0.6, _SHOPS, 1.2, 0.12, ("Basket", "Gift card", "Delivery")),
    Category("5812", "Restaurant", 38, 0.5, _MEALS, 1.6, 0.11, ("Menu", "Table deposit", "Voucher"), by_hand=0.02),
    Category("5814", "Takeaway", 15, 0.4, _MEALS, 1.4, 0.10, ("Lunch", "Family box", "Coffee card")),
    Category("5541", "Fuel", 52, 0.4, _TRAVEL, 0.9, 0.07, ("Fuel", "Car wash"), by_hand=0.3),
    Category("5651", "Clothing", 60, 0.7, _SHOPS, 1.3, 0.10, ("Shirt", "Coat", "Shoes", "Scarf")),
    Category("5732", "Electronics", 160, 0.9, _ONLINE, 1.1, 0.08, ("Headphones", "Laptop", "Charger", "Camera")),
    Category("5912", "Pharmacy", 19, 0.6, _SHOPS, 0.6, 0.06, ("Medicine", "Care", "Vitamins")),
    Category("5942", "Books", 22, 0.5, _ONLINE, 1.1, 0.06, ("Novel", "Textbook", "Atlas")),
    Category("7011", "Hotel", 140, 0.6, _TRAVEL, 1.3, 0.05, ("Room", "Suite", "Breakfast"), by_hand=0.5),
    Category("4111", "Transit", 9, 0.7, _TRAVEL, 0.6, 0.06, ("Single ticket", "Day ticket", "Monthly pass")),
    Category("7832", "Cinema", 21, 0.3, _MEALS, 2.2, 0.04, ("Ticket", "Family ticket")),
    Category("5999", "Market", 33, 0.8, _ONLINE, 1.2, 0.04, ("Lamp", "Vase", "Toy", "Tool")),
    Category("5734", "Software", 29, 0.5, _ONLINE, 0.5, 0.06, ("Editor", "Backup", "Analytics"), recurring=True),
    Category("7997", "Fitness", 35, 0.3, _MEALS, 0.9, 0.03, ("Membership", "Classes"), recurring=True),
    Category("4899", "Streaming", 11, 0.3, _ONLINE, 1.4, 0.04, ("Films", "Music", "Sport"), recurring=True),
)

EUR = Currency("eur", 100, 1, 1.0)
USD = Currency("usd", 100, 1, 1.1)

# The first of each currency that is written otherwise than in hundredths stands early: no population lacks it.
COUNTRIES = (
    Country("DE", EUR, 1.0, 0.14, 1, european=True, tax=0.19),
    Country("US", USD, 1.1, 0.24, -5),
    Country("GB", Currency("gbp", 100, 1, 0.86), 1.1, 0.12, 0, european=True, tax=0.20),
    Country("JP", Currency("jpy", 1, 1, 160.0), 0.9, 0.06, 9, tax=0.10),
    Country("KW", Currency("kwd", 1000, 10, 0.34), 0.8, 0.03, 3),
    Country("FR", EUR, 1.05, 0.10, 1, european=True, tax=0.20),
    Country("ES", EUR, 0.85, 0.05, 1, european=True, tax=0.21),
    Country("IT", EUR, 0.9, 0.05, 1, european=True, tax=0.22),
    Country("NL", EUR, 1.1, 0.04, 1, european=True, tax=0.21),
    Country("SE", Currency("sek", 100, 1, 11.3), 1.1, 0.03, 1, european=True, tax=0.25),
    Country("PL", Currency("pln", 100, 1, 4.3), 0.6, 0.03, 1, european=True, tax=0.23),
    Country("CH", Currency("chf", 100, 1, 0.95), 1.5, 0.03, 1, european=True, tax=0.081),
    Country("CA", Currency("cad", 100, 1, 1.5), 1.0, 0.03, -5),
    Country("AU", Currency("aud", 100, 1, 1.65), 1.1, 0.02, 10, tax=0.10),
    Country("BR", Currency("brl", 100, 1, 5.9), 0.5, 0.02, -3),
    Country("SG", Currency("sgd", 100, 1, 1.45), 1.1, 0.01, 8),
)
WRITTEN_OTHERWISE = 5
"""So many of the first countries are in every population."""

CATEGORY_WEIGHTS = np.array([category.share for category in CATEGORIES])
COUNTRY_WEIGHTS = np.array([country.share for country in COUNTRIES])
BY_COUNTRY = {country.iso2: country for country in COUNTRIES}
MULTIPLES = np.array([country.currency.multiple for country in COUNTRIES], dtype=np.int64)
CURRENCY_CODES = np.array([country.currency.code for country in COUNTRIES])
COUNTRY_CODES = np.array([country.iso2 for country in COUNTRIES])
# Steps of the currency, of `multiple` minor units, that one euro's worth of goods costs in each country.
STEPS_PER_EURO = np.array(
    [
        country.prices * country.currency.rate * country.currency.minor / country.currency.multiple
        for country in COUNTRIES
    ]
)


def hour_weights(category: Category) -> Floats:
    """Payments per hour of the local day."""
    return np.array(category.hours, dtype=float)


def amounts(euros: Floats, country: Ints) -> Ints:
    """What goods worth so many German euros cost in each country: minor units, at least one step of the currency."""
    steps = np.maximum(np.rint(euros * STEPS_PER_EURO[country]), 1).astype(np.int64)
    return np.asarray(steps * MULTIPLES[country])
