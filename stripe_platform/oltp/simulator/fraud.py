"""Fraud of four kinds. What is fraud is known here and to tests alone: the tables hold what a company would know."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.population import Population
from stripe_platform.oltp.simulator.run import DAY, HOUR, MINUTE, SECOND, Draws, Flags, Floats, Ints, Purpose, Run


class Kind(IntEnum):
    """What a payment is."""

    HONEST = 0
    CARD_TESTING = 1
    STOLEN_CARD = 2
    COMPROMISED_MERCHANT = 3
    OUT_OF_HABIT = 4


# Of all payments.
_TESTED = 0.0035
_STOLEN = 0.003
_OUT_OF_HABIT = 0.0015
_COMPROMISED_MERCHANTS = 0.03
_COMPROMISED_SHARE = 0.25
_MOST_OF_A_MERCHANT = 4
# Numbers of thieves, apart from those of persons.
FIRST_THIEF = 2**40

ATTEMPTS = {
    "at": pl.Int64,
    "merchant": pl.Int64,
    "card": pl.Int64,
    "kind": pl.Int64,
    "amount": pl.Int64,
    "origin": pl.Int64,
    "shipping": pl.Int64,
    "approval": pl.Float64,
}


@dataclass(frozen=True)
class FraudPlan:
    """What thieves do: `attempts` of their own, and merchants whose customers' cards leak for a while.

    `attempts`: at, merchant, card, kind, amount, origin (who sits there: one device, one address), shipping (a
    country's number), approval (the chance that the issuer agrees); by merchant and moment. `leaks`: merchant,
    opened, closed.
    """

    attempts: pl.DataFrame
    leaks: pl.DataFrame

    def of(self, first: int, end: int) -> pl.DataFrame:
        """The attempts at the merchants from `first` to `end` - 1."""
        return self.attempts.filter(pl.col("merchant").is_between(first, end - 1))


def fraud_plan(run: Run, population: Population) -> FraudPlan:
    """What thieves will do in the run."""
    draws = run.draws(Purpose.FRAUD)
    attempts = pl.concat([_card_testing(run, draws, population), _stolen_cards(run, draws, population)])
    quota = population.merchants["quota"].gather(attempts["merchant"])
    attempts = (
        attempts.with_columns(most=quota // _MOST_OF_A_MERCHANT)
        .sort("merchant", "at", maintain_order=True)
        .filter(pl.int_range(pl.len()).over("merchant") < pl.col("most"))
        .drop("most")
    )
    return FraudPlan(attempts, _leaks(run, draws, population))


def _card_testing(run: Run, draws: Draws, population: Population) -> pl.DataFrame:
    """Many small payments with many cards at one merchant within minutes: which of the cards still work?"""
    wanted = int(run.payments * _TESTED)
    sizes = draws.between(12, 40, wanted // 12 + 1)
    episodes = max(int(np.searchsorted(np.cumsum(sizes), wanted)), 1)
    sizes = sizes[:episodes]
    merchant = _by_quota(draws, population, episodes)
    begun = draws.between(run.start, run.end - 2 * HOUR, episodes)
    episode = np.repeat(np.arange(episodes), sizes)
    count = len(episode)
    country = population.merchants["country"].to_numpy()[merchant[episode]]
    return pl.DataFrame(
        {
            "at": begun[episode] + draws.between(0, 15 * MINUTE, count),
            "merchant": merchant[episode],
            "card": draws.between(0, population.cards.height, count),
            "kind": np.full(count, int(Kind.CARD_TESTING)),
            "amount": catalogue.amounts(0.5 + draws.random.random(count) * 2, country),
            "origin": FIRST_THIEF + episode,
            "shipping": np.full(count, -1),
            "approval": np.full(count, 0.3),
        },
        schema=ATTEMPTS,
    )


def _stolen_cards(run: Run, draws: Draws, population: Population) -> pl.DataFrame:
    """One card at several merchants within hours, ever larger amounts, until the issuer notices."""
    wanted = int(run.payments * _STOLEN)
    sizes = draws.between(4, 9, wanted // 4 + 1)
    episodes = max(int(np.searchsorted(np.cumsum(sizes), wanted)), 1)
    sizes = sizes[:episodes]
    episode = np.repeat(np.arange(episodes), sizes)
    count = len(episode)
    step = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    begun = draws.between(run.start, run.end - 6 * HOUR, episodes)
    merchant = _by_quota(draws, population, count)
    country = population.merchants["country"].to_numpy()[merchant]
    euros = (
        population.merchants["euros"].to_numpy()[merchant] * 1.5 ** (step + 1) * draws.random.lognormal(0, 0.2, count)
    )
    return pl.DataFrame(
        {
            "at": begun[episode] + step * 35 * MINUTE + draws.between(0, 20 * MINUTE, count),
            "merchant": merchant,
            "card": draws.between(0, population.cards.height, episodes)[episode],
            "kind": np.full(count, int(Kind.STOLEN_CARD)),
            "amount": catalogue.amounts(euros, country),
            "origin": 2 * FIRST_THIEF + episode,
            "shipping": draws.between(0, len(catalogue.COUNTRIES), episodes)[episode],
            "approval": np.maximum(0.85 - 0.09 * step, 0.2),
        },
        schema=ATTEMPTS,
    )


def _by_quota(draws: Draws, population: Population, count: int) -> Ints:
    return draws.pick(population.merchants["quota"].to_numpy().astype(float), count)


def _leaks(run: Run, draws: Draws, population: Population) -> pl.DataFrame:
    count = max(int(population.merchants.height * _COMPROMISED_MERCHANTS), 1)
    merchant = np.unique(draws.between(0, population.merchants.height, count))
    weeks = draws.between(14 * DAY, 29 * DAY, len(merchant))
    opened = draws.between(run.start, np.maximum(run.end - 45 * DAY, run.start + SECOND), len(merchant))
    return pl.DataFrame({"merchant": merchant, "opened": opened, "closed": opened + weeks})


def leaked(draws: Draws, plan: FraudPlan, merchant: Ints, at: Ints) -> Flags:
    """Which payments are made by thieves with cards that leaked at a compromised merchant."""
    opened = np.full(int(merchant.max(initial=0)) + 1, np.iinfo(np.int64).max)
    closed = np.zeros_like(opened)
    mine = plan.leaks.filter(pl.col("merchant") < len(opened))
    opened[mine["merchant"].to_numpy()] = mine["opened"].to_numpy()
    closed[mine["merchant"].to_numpy()] = mine["closed"].to_numpy()
    inside = (at >= opened[merchant]) & (at < closed[merchant])
    return np.asarray(inside & draws.happens(_COMPROMISED_SHARE, len(at)))


def out_of_habit(draws: Draws, count: int) -> tuple[Flags, Floats]:
    """Which payments of known customers are a thief's, and how many times their habit each amount is."""
    strange = draws.happens(_OUT_OF_HABIT, count)
    return strange, np.where(strange, 5 + 5 * draws.random.random(count), 1.0)
