"""Who there is: merchants, the people who pay them, and the cards that people use at several merchants."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.run import DAY, Draws, Flags, Floats, Ints, Purpose, Run, mixed

PAYMENTS_PER_BATCH = 10_000
"""The most that one transaction writes; no merchant has more, for a merchant's books are written at once."""

_PAYMENTS_PER_MERCHANT = 200
_PAYMENTS_PER_CUSTOMER = 6
_PAYMENTS_PER_SUBSCRIBER = 3
_PEOPLE_PER_CUSTOMER = 0.62
_AT_HOME = 0.85
_SECOND_CARD = 0.15
_JOINED_BEFORE = 0.6
_BRANDS = ("visa", "mastercard", "amex", "discover", "jcb", "cartes_bancaires")
_FIRST_DIGITS = {"visa": 4, "mastercard": 5, "amex": 3, "discover": 6, "jcb": 3, "cartes_bancaires": 4}
_FUNDINGS = ("debit", "credit", "prepaid")
_BRAND_WEIGHTS = (0.50, 0.34, 0.09, 0.03, 0.02, 0.02)
_FUNDING_WEIGHTS = (0.52, 0.43, 0.05)


@dataclass(frozen=True)
class Population:
    """Who there is, each with a number, its place in its frame.

    `merchants`: category, country, euros (median payment), quota (payments of the run), created, weekly (paid out
    so, else daily), batch. `customers`, by merchant: merchant, person, card, country, factor (of the merchant's
    median that they spend), created. `cards`: country, brand, funding,
    bin6, last4, created (the end of the run when nobody uses it).
    """

    merchants: pl.DataFrame
    customers: pl.DataFrame
    cards: pl.DataFrame
    first_customer: Ints
    batches: int

    def using_cards(self, card: Ints, at: Ints) -> "Population":
        """The same, with cards that are used at these moments too."""
        created = self.cards["created"].to_numpy().copy()
        np.minimum.at(created, card, at)
        cards = self.cards.with_columns(created=pl.Series(created))
        return Population(self.merchants, self.customers, cards, self.first_customer, self.batches)


def people(run: Run) -> Population:
    """The population of a run."""
    draws = run.draws(Purpose.POPULATION)
    merchants = _merchants(run, draws)
    customers, first_customer = _customers(run, draws, merchants)
    cards, customers = _cards(run, draws, customers)
    population = Population(merchants, customers, cards, first_customer, int(merchants["batch"].max()) + 1)  # type: ignore[arg-type]
    return population.using_cards(customers["card"].to_numpy(), customers["created"].to_numpy())


def _merchants(run: Run, draws: Draws) -> pl.DataFrame:
    count = max(run.payments // _PAYMENTS_PER_MERCHANT, catalogue.WRITTEN_OTHERWISE)
    country = draws.pick(catalogue.COUNTRY_WEIGHTS, count)
    country[: catalogue.WRITTEN_OTHERWISE] = range(catalogue.WRITTEN_OTHERWISE)
    category = draws.pick(catalogue.CATEGORY_WEIGHTS, count)
    # Somebody sells subscriptions, however few there are.
    category[:2] = [len(catalogue.CATEGORIES) - 1, len(catalogue.CATEGORIES) - 3]
    tickets = np.array([known.ticket for known in catalogue.CATEGORIES])
    quota = _quotas(run.payments, draws.random.lognormal(0, 0.9, count))
    return pl.DataFrame(
        {
            "merchant": np.arange(count),
            "category": category,
            "country": country,
            "euros": tickets[category] * draws.random.lognormal(0, 0.25, count),
            "quota": quota,
            "created": run.start - draws.between(60 * DAY, 900 * DAY, count),
            "weekly": draws.happens(0.4, count),
            "batch": _batches(quota),
        }
    )


def _quotas(payments: int, weights: Floats) -> Ints:
    """So many payments shared out by weight, none with more than a batch holds."""
    quota: Ints = np.minimum((weights / weights.sum() * payments).astype(np.int64), PAYMENTS_PER_BATCH)
    while left := payments - int(quota.sum()):
        open_to_more = np.flatnonzero(quota < PAYMENTS_PER_BATCH)[:left]
        quota[open_to_more] += 1
    return quota


def _batches(quota: Ints) -> Ints:
    """The batch of each merchant: one after the other, as many as fit."""
    batches, batch, held = np.zeros(len(quota), dtype=np.int64), 0, 0
    for merchant, payments in enumerate(quota.tolist()):
        if held + payments > PAYMENTS_PER_BATCH:
            batch, held = batch + 1, 0
        held += payments
        batches[merchant] = batch
    return batches


def joined_by(count: Ints, elapsed: Floats) -> Ints:
    """How many of a merchant's `count` customers are there when a share of the run's time is over; at least one."""
    return np.asarray(np.maximum((count * (_JOINED_BEFORE + (1 - _JOINED_BEFORE) * elapsed)).astype(np.int64), 1))


def _customers(run: Run, draws: Draws, merchants: pl.DataFrame) -> tuple[pl.DataFrame, Ints]:
    recurring = np.array([category.recurring for category in catalogue.CATEGORIES])[merchants["category"].to_numpy()]
    each = np.where(recurring, _PAYMENTS_PER_SUBSCRIBER, _PAYMENTS_PER_CUSTOMER)
    counts = merchants["quota"].to_numpy() // each + 1
    merchant = np.repeat(np.arange(merchants.height), counts)
    first = np.concatenate([[0], np.cumsum(counts)])
    country_of_merchant = merchants["country"].to_numpy()
    homes, first_at_home = _homes(draws, country_of_merchant[merchant])
    home = country_of_merchant[merchant]
    at_home = draws.happens(_AT_HOME, len(merchant)) & (np.diff(first_at_home)[home] > 0)
    person = np.where(
        at_home,
        draws.between(first_at_home[home], np.maximum(first_at_home[home + 1], first_at_home[home] + 1), len(merchant)),
        draws.between(0, len(homes), len(merchant)),
    )
    return (
        pl.DataFrame(
            {
                "merchant": merchant,
                "person": person,
                "country": homes[person],
                "factor": draws.random.lognormal(0, 0.35, len(merchant)),
                "created": _joined(run, draws, merchants, merchant, np.arange(len(merchant)) - first[merchant]),
            }
        ),
        first,
    )


def _homes(draws: Draws, countries_of_customers: Ints) -> tuple[Ints, Ints]:
    """The country of each person, in order, and the first person of each country."""
    count = max(int(len(countries_of_customers) * _PEOPLE_PER_CUSTOMER), 1)
    weights = np.bincount(countries_of_customers, minlength=len(catalogue.COUNTRIES)) + np.float64(0.01 * count)
    homes = np.sort(draws.pick(weights, count))
    return homes, np.searchsorted(homes, np.arange(len(catalogue.COUNTRIES) + 1))


def _joined(run: Run, draws: Draws, merchants: pl.DataFrame, merchant: Ints, place: Ints) -> Ints:
    """When each customer joined: in order of place those of `joined_by`, the others before the run."""
    count = np.bincount(merchant)[merchant]
    opened = merchants["created"].to_numpy()[merchant]
    before = draws.between(opened, run.start, len(merchant))
    # One second early: rounding must not make a customer join after a payment of theirs.
    elapsed = (place / count - _JOINED_BEFORE) / (1 - _JOINED_BEFORE)
    during = run.start + (elapsed * (run.end - run.start)).astype(np.int64) - 1_000_000
    return np.where(elapsed > 0, np.maximum(during, before), before)


def _cards(run: Run, draws: Draws, customers: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One card for each person and a second one for some; each customer with the card they use at the merchant."""
    person = customers["person"].to_numpy()
    count = int(person.max()) + 1
    home = np.zeros(count, dtype=np.int64)
    home[person] = customers["country"].to_numpy()
    has_second = np.flatnonzero(draws.happens(_SECOND_CARD, count))
    second = np.full(count, -1, dtype=np.int64)
    second[has_second] = count + np.arange(len(has_second))
    uses_second: Flags = draws.happens(0.5, len(person)) & (second[person] >= 0)
    total = count + len(has_second)
    owner_home = np.concatenate([home, home[has_second]])
    abroad = draws.happens(0.04, total)
    brand = draws.pick(_BRAND_WEIGHTS, total)
    cards = pl.DataFrame(
        {
            "country": np.where(abroad, draws.pick(catalogue.COUNTRY_WEIGHTS, total), owner_home),
            "brand": pl.Series(np.array(_BRANDS)[brand], dtype=pl.String),
            "funding": pl.Series(np.array(_FUNDINGS)[draws.pick(_FUNDING_WEIGHTS, total)], dtype=pl.String),
            "bin6": pl.Series(np.array(list(_FIRST_DIGITS.values()))[brand] * 100_000 + draws.between(0, 1e5, total)),
            "last4": draws.between(0, 10_000, total),
            "high": draws.random.integers(2**63, size=total, dtype=np.uint64),
            "low": mixed(np.arange(total), run.seed + 1),
            "created": np.full(total, run.end),
        }
    )
    used = np.where(uses_second, second[person], person)
    return cards, customers.with_columns(card=pl.Series(used))
