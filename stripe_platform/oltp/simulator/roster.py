"""Who is in the database: the merchants and payment methods that a live run makes payments with."""

import random
from dataclasses import dataclass
from uuid import UUID

import psycopg

from stripe_platform.errors import StripePlatformError

_MOST = 20_000
_ONE_LEAVES_OF = 50
_MERCHANTS = """
SELECT merchant.id, merchant.default_currency, currency.exponent, currency.charge_multiple, currency.payout_multiple,
    (
        SELECT avg(recent.amount)::bigint
        FROM (
            SELECT amount FROM payments.charges AS charge
            WHERE charge.merchant_id = merchant.id AND charge.currency = merchant.default_currency
            ORDER BY created DESC LIMIT 20
        ) AS recent
    ) AS usual
FROM payments.merchants AS merchant
INNER JOIN payments.currencies AS currency ON currency.code = merchant.default_currency
WHERE merchant.charges_enabled
ORDER BY merchant.id DESC LIMIT 2000
"""
_PAYERS = """
SELECT method.id, method.customer_id, customer.merchant_id, card.brand
FROM payments.payment_methods AS method
INNER JOIN payments.customers AS customer ON customer.id = method.customer_id
INNER JOIN payments.card_fingerprints AS card ON card.fingerprint = method.card_fingerprint
WHERE customer.deleted_at IS NULL AND method.detached_at IS NULL
ORDER BY method.id DESC LIMIT %s
"""


class NobodyToPay(StripePlatformError):
    """There is no population to simulate with."""

    def __init__(self) -> None:
        super().__init__(
            "no merchant, or nobody who could pay one: make a population first, with "
            "`stripe-platform simulate --payments 1000` or `stripe-platform import-payments`"
        )


@dataclass(frozen=True)
class Merchant:
    """A merchant; `usual` is what is usually paid there, minor units of its currency."""

    id: UUID
    currency: str
    charge_multiple: int
    payout_multiple: int
    usual: int


@dataclass(frozen=True)
class Payer:
    """A payment method and whose it is; `merchant` is None for a customer of the platform itself."""

    method_id: UUID
    customer_id: UUID
    merchant: Merchant | None
    brand: str


@dataclass(frozen=True)
class Roster:
    """Merchants and payers, in an order that the database's content alone decides.

    `leavers` are customers who may leave while the run goes on. They pay nothing in any live run, so that no payment
    under way, be it of another process, comes after its customer has left.
    """

    merchants: tuple[Merchant, ...]
    payers: tuple[Payer, ...]
    leavers: tuple[Payer, ...]

    @classmethod
    def read(cls, connection: psycopg.Connection) -> "Roster":
        """The newest of the database; raises `NobodyToPay` when there are none."""
        merchants = {
            id_: Merchant(id_, currency, multiple, payout, int(usual or 25 * 10**exponent))
            for id_, currency, exponent, multiple, payout, usual in connection.execute(_MERCHANTS)
        }
        payers = tuple(
            Payer(method, customer, merchants.get(merchant), brand)
            for method, customer, merchant, brand in connection.execute(_PAYERS, [_MOST])
            if merchant is None or merchant in merchants
        )
        leavers = tuple(payer for payer in payers if payer.merchant and payer.customer_id.int % _ONE_LEAVES_OF == 0)
        leaving = set(leavers)
        stayers = tuple(payer for payer in payers if payer not in leaving)
        if not merchants or not stayers:
            raise NobodyToPay
        return cls(tuple(merchants.values()), stayers, leavers)

    def someone(self, chance: random.Random) -> tuple[Payer, Merchant, int]:
        """Who pays whom how much."""
        payer = chance.choice(self.payers)
        merchant = payer.merchant or chance.choice(self.merchants)
        steps = max(round(merchant.usual * chance.lognormvariate(0, 0.5) / merchant.charge_multiple), 1)
        return payer, merchant, steps * merchant.charge_multiple
