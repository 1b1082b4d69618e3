"""Who wants to pay what, when and where: the payments before anybody has judged them."""

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue, fraud
from stripe_platform.oltp.simulator.billing import Billing
from stripe_platform.oltp.simulator.fraud import Kind
from stripe_platform.oltp.simulator.population import joined_by
from stripe_platform.oltp.simulator.rhythm import moments
from stripe_platform.oltp.simulator.run import Draws, Flags, Floats, Ints, mixed
from stripe_platform.oltp.simulator.scope import Scope

GUEST = -1

# `at` the moment, numbers of merchant, customer (or GUEST) and card, `origin` who sits there, `shipping` a country's
# number or -1, `approval` the chance that the issuer agrees, `by_hand` captured later, `invoice` its place or -1;
# `tries` and `paid` are settled for renewals alone, else -1 and False.
_COLUMNS = (
    "at", "merchant", "customer", "card", "kind", "amount", "origin", "shipping", "approval", "by_hand", "invoice",
    "tries", "paid", "renewal",
)  # fmt: skip
_GUESTS = 0.12
_SHIPPED = 0.5
_SENT_ABROAD = 0.03
_STRANGE_SHIPPING = 0.5
# Persons use a telephone beside the computer.
_SECOND_DEVICE = 0.25
_SECOND_DEVICES = 2**32
_DECLINED_MORE_OFTEN = {"amex": 0.03, "discover": 0.01}


def wishes(scope: Scope, draws: Draws, billing: Billing) -> pl.DataFrame:
    """All payments of the batch, in order of time: as many as its merchants' quotas say."""
    planned = pl.concat([_thieves(scope), _invoiced(scope, billing)])
    taken = np.bincount(planned["merchant"].to_numpy() - scope.first, minlength=scope.merchants.height)
    left = scope.merchants["quota"].to_numpy() - taken
    return pl.concat([planned, _one_off(scope, draws, np.repeat(np.arange(scope.first, scope.end), left))]).sort(
        "at", "merchant", maintain_order=True
    )


def approval(scope: Scope, merchant: Ints, card: Ints, euros: Floats) -> pl.Series:
    """The chance that the issuer agrees to a payment: less for cards from abroad, prepaid ones and large amounts."""
    cards = scope.population.cards
    brand = cards["brand"].gather(card).replace_strict(_DECLINED_MORE_OFTEN, default=0.0, return_dtype=pl.Float64)
    abroad = cards["country"].to_numpy()[card] != scope.country(merchant)
    prepaid = (cards["funding"].gather(card) == "prepaid").to_numpy()
    large = np.clip(np.log10(np.maximum(euros, 1)) - 2, 0, 1)
    return pl.Series(0.915 - brand.to_numpy() - 0.05 * abroad - 0.06 * prepaid - 0.05 * large)


def _one_off(scope: Scope, draws: Draws, merchant: Ints) -> pl.DataFrame:
    run, count = scope.run, len(merchant)
    place = merchant - scope.first
    category = scope.merchants["category"].to_numpy()[place]
    at = moments(run, draws, category, scope.merchants["country"].to_numpy()[place])
    there = joined_by(np.diff(scope.first_customer)[place], (at - run.start) / (run.end - run.start))
    customer = scope.first_customer[place] + (there * draws.random.random(count) ** 1.3).astype(np.int64)
    known = scope.customers[customer - scope.first_customer[0]]
    strange, times = fraud.out_of_habit(draws, count)
    leaked = fraud.leaked(draws, scope.plan, merchant, at) & ~strange
    spread = np.array([kind.spread for kind in catalogue.CATEGORIES])[category] * 0.6
    euros = scope.merchants["euros"].to_numpy()[place] * known["factor"].to_numpy()
    euros = euros * draws.random.lognormal(0, spread) * times
    stolen = strange | leaked
    guest = draws.happens(_GUESTS, count) & ~strange
    person = known["person"].to_numpy()
    by_hand = np.array([kind.by_hand for kind in catalogue.CATEGORIES])[category]
    return pl.DataFrame(
        {
            "at": at,
            "merchant": merchant,
            "customer": np.where(guest, GUEST, customer),
            "card": known["card"].to_numpy(),
            "kind": np.where(leaked, Kind.COMPROMISED_MERCHANT, np.where(strange, Kind.OUT_OF_HABIT, Kind.HONEST)),
            "amount": catalogue.amounts(euros, scope.country(merchant)),
            "origin": np.where(
                stolen,
                3 * fraud.FIRST_THIEF + np.arange(count) + count * scope.batch,
                person + np.where(draws.happens(_SECOND_DEVICE, count), _SECOND_DEVICES, 0),
            ),
            "shipping": _shipping(draws, known["country"].to_numpy(), strange),
            "approval": approval(scope, merchant, known["card"].to_numpy(), euros),
            "by_hand": draws.happens(by_hand, count),
            "invoice": np.full(count, -1),
            "tries": np.full(count, -1),
            "paid": np.zeros(count, dtype=bool),
            "renewal": np.zeros(count, dtype=bool),
        }
    ).select(_COLUMNS)


def _shipping(draws: Draws, home: Ints, strange: Flags) -> Ints:
    count = len(home)
    shipped = draws.happens(_SHIPPED, count)
    elsewhere = draws.happens(np.where(strange, _STRANGE_SHIPPING, _SENT_ABROAD), count)
    return np.where(shipped, np.where(elsewhere, draws.between(0, len(catalogue.COUNTRIES), count), home), -1)


def _thieves(scope: Scope) -> pl.DataFrame:
    return (
        scope.plan.of(scope.first, scope.end)
        .with_columns(
            customer=pl.lit(GUEST, dtype=pl.Int64),
            by_hand=pl.lit(False),
            invoice=pl.lit(-1, dtype=pl.Int64),
            tries=pl.lit(-1, dtype=pl.Int64),
            paid=pl.lit(False),
            renewal=pl.lit(False),
        )
        .select(_COLUMNS)
    )


def _invoiced(scope: Scope, billing: Billing) -> pl.DataFrame:
    """The payments of invoices that somebody has tried to pay."""
    if billing.invoices.is_empty():
        return _thieves(scope).clear()
    invoices = billing.invoices.with_row_index("invoice").filter(pl.col("tries") > 0, pl.col("subtotal") > 0)
    subscribed = billing.subscriptions[invoices["subscription"]]
    known = scope.customers[subscribed["customer"] - scope.first_customer[0]]
    return invoices.select(
        pl.col("final").alias("at"),
        subscribed["merchant"],
        subscribed["customer"],
        known["card"],
        pl.lit(int(Kind.HONEST), dtype=pl.Int64).alias("kind"),
        pl.col("total").alias("amount"),
        known["person"].alias("origin"),
        pl.lit(-1, dtype=pl.Int64).alias("shipping"),
        pl.lit(1.0).alias("approval"),
        pl.lit(False).alias("by_hand"),
        pl.col("invoice").cast(pl.Int64),
        pl.col("tries").cast(pl.Int64),
        "paid",
        (~pl.col("first")).alias("renewal"),
    ).select(_COLUMNS)


def addresses(origin: Ints, wandering: Ints) -> pl.Series:
    """A network address of each origin, of the ranges kept for documents: two thirds IPv6, else IPv4.

    RFC 5737 and RFC 3849: nobody has such an address. `wandering` numbers the places that one origin is at.
    """
    word = mixed(origin * 8 + wandering, 5)
    nets = ("192.0.2", "198.51.100", "203.0.113")
    return pl.Series(
        [
            f"2001:db8:{(number >> 8) & 0xFFFF:x}:{(number >> 24) & 0xFFFF:x}::{number >> 48:x}"
            if number % 3
            else f"{nets[(number >> 8) % 3]}.{1 + (number >> 12) % 254}"
            for number in word.tolist()
        ],
        dtype=pl.String,
    )


def devices(origin: Ints) -> pl.Series:
    """The device of each origin."""
    return pl.Series([f"device_{number:016x}" for number in mixed(origin, 6).tolist()], dtype=pl.String)
