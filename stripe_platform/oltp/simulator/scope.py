"""One batch: some merchants and all that belongs to them, with the keys of their rows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.fraud import FraudPlan
from stripe_platform.oltp.simulator.population import Population
from stripe_platform.oltp.simulator.run import Draws, Ints, Purpose, Run


@dataclass(frozen=True)
class Scope:
    """The merchants of one batch, from number `first` on."""

    run: Run
    population: Population
    plan: FraudPlan
    batch: int

    @cached_property
    def merchants(self) -> pl.DataFrame:
        """Its merchants, with their key `id`."""
        merchants = self.population.merchants.filter(pl.col("batch") == self.batch)
        return merchants.with_columns(id=self.draws(Purpose.MERCHANTS).keys(merchants["created"]))

    @property
    def first(self) -> int:
        """The number of its first merchant."""
        return int(self.merchants["merchant"][0])

    @property
    def end(self) -> int:
        """The number after its last merchant's."""
        return self.first + self.merchants.height

    @cached_property
    def customers(self) -> pl.DataFrame:
        """Its customers, by merchant, with `id` and `method_id`, the key of their payment method."""
        low, high = int(self.first_customer[0]), int(self.first_customer[-1])
        customers = self.population.customers[low:high]
        draws = self.draws(Purpose.CUSTOMERS)
        return customers.with_columns(
            id=draws.keys(customers["created"]),
            method_id=draws.keys(customers["created"]),
            number=low + pl.int_range(pl.len()),
        )

    @cached_property
    def first_customer(self) -> Ints:
        """The number of the first customer of each of its merchants, and the one after the last of all."""
        return self.population.first_customer[self.first : self.end + 1]

    def draws(self, purpose: Purpose) -> Draws:
        """The random numbers of this batch for one purpose."""
        return self.run.draws(purpose, self.batch + 1)

    def country(self, merchant: Ints) -> Ints:
        """The country's number of each merchant."""
        return np.asarray(self.population.merchants["country"].to_numpy()[merchant])

    def multiple(self, merchant: Ints) -> Ints:
        """What divides the amounts of each merchant's currency."""
        return np.asarray(catalogue.MULTIPLES[self.country(merchant)])

    def merchant_ids(self, merchant: pl.Series) -> pl.Series:
        """The keys of merchants, by their numbers."""
        return self.merchants["id"].gather(merchant - self.first)

    def currencies(self, merchant: Ints) -> pl.Series:
        """The currency of each merchant."""
        return pl.Series(catalogue.CURRENCY_CODES[self.country(merchant)], dtype=pl.String)

    def fingerprints(self, card: pl.Series) -> pl.Series:
        """The fingerprints of cards, by their numbers."""
        return fingerprints(self.population.cards, card.to_numpy())


def fingerprints(cards: pl.DataFrame, card: Ints) -> pl.Series:
    """The pseudonyms of cards: 32 hexadecimal digits each."""
    words = np.empty((len(card), 2), dtype=">u8")
    words[:, 0], words[:, 1] = cards["high"].to_numpy()[card], cards["low"].to_numpy()[card]
    digits = words.tobytes().hex()
    return pl.Series([digits[at : at + 32] for at in range(0, len(digits), 32)], dtype=pl.String)
