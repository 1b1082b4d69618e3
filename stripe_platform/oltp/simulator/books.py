"""The rows of one batch: some merchants, and all that has to do with them from the first day to the last."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import billing_rows, money, party_rows, shop
from stripe_platform.oltp.simulator.aftermath import follow
from stripe_platform.oltp.simulator.billing import bill
from stripe_platform.oltp.simulator.events import event_rows
from stripe_platform.oltp.simulator.fraud import FraudPlan, fraud_plan
from stripe_platform.oltp.simulator.payment_rows import Rows, payout_rows
from stripe_platform.oltp.simulator.payments import Payments, judge
from stripe_platform.oltp.simulator.payouts import pay_out
from stripe_platform.oltp.simulator.population import Population, people
from stripe_platform.oltp.simulator.run import Ints, Purpose, Run, with_times
from stripe_platform.oltp.simulator.scope import Scope
from stripe_platform.oltp.simulator.wishes import wishes
from stripe_platform.oltp.tables import CAPTURED_TABLES


@dataclass(frozen=True)
class Books:
    """`tables`: the rows by table, parents first. `truth`: `charge_id, kind`, what no table of the company says."""

    tables: dict[str, pl.DataFrame]
    truth: pl.DataFrame


@dataclass(frozen=True)
class World:
    """All that the batches of a run have in common; each batch follows from it alone, whatever was written before."""

    run: Run
    population: Population
    plan: FraudPlan

    @classmethod
    def of(cls, run: Run) -> "World":
        """The world of a run."""
        population = people(run)
        plan = fraud_plan(run, population)
        with_thieves = population.using_cards(plan.attempts["card"].to_numpy(), plan.attempts["at"].to_numpy())
        return cls(run, with_thieves, plan)

    def cards(self) -> pl.DataFrame:
        """Rows of `card_fingerprints`: cards are shared by merchants, and so by batches, and are there before them."""
        return with_times(party_rows.card_rows(self.run, self.population))

    @property
    def batches(self) -> int:
        """How many batches there are, of at most `PAYMENTS_PER_BATCH` payments."""
        return self.population.batches

    def books(self, batch: int) -> Books:
        """The rows of one batch."""
        scope = Scope(self.run, self.population, self.plan, batch)
        draws = scope.draws(Purpose.PAYMENTS)
        sold = shop.shop(scope)
        billing = bill(scope, sold)
        keys = billing_rows.billing_keys(scope.draws(Purpose.BILLING), billing)
        wished = party_rows.with_methods(scope, draws, wishes(scope, draws, billing))
        payments = billing_rows.with_invoices(billing, keys, judge(scope, draws, wished))
        aftermath = follow(scope, scope.draws(Purpose.AFTERMATH), payments)
        accounts = scope.draws(Purpose.MONEY)
        moved = money.movements(scope, accounts, payments, aftermath)
        paid_out = pay_out(scope, accounts, moved)
        rows = Rows(scope, payments, aftermath)
        tables = {
            "merchants": party_rows.merchant_rows(scope),
            "customers": party_rows.customer_rows(
                scope, draws, _last_seen(scope, payments), _delinquent(billing.subscriptions)
            ),
            "addresses": party_rows.address_rows(scope, draws),
            "payment_methods": party_rows.method_rows(scope, draws, wished),
            "products": shop.product_rows(scope, sold),
            "prices": shop.price_rows(scope, sold),
            "subscriptions": billing_rows.subscription_rows(scope, billing, keys),
            "subscription_items": billing_rows.item_rows(sold, billing, keys),
            "invoices": billing_rows.invoice_rows(scope, billing, keys, payments),
            "invoice_lines": billing_rows.line_rows(scope, draws, billing, keys),
            "payment_intents": rows.intents(draws),
            "charges": rows.charges(draws),
            "charge_outcomes": rows.outcomes(),
            "reviews": rows.reviews(),
            "early_fraud_warnings": rows.warnings(),
            "payouts": payout_rows(scope, paid_out),
            "balance_transactions": money.movement_rows(scope, moved, paid_out),
            "fee_details": money.fee_rows(scope, accounts, moved),
            "refunds": rows.refunds(moved),
            "disputes": rows.disputes(),
            "dispute_balance_transactions": rows.dispute_movements(moved),
        }
        tables = {name: frame for name, frame in tables.items() if frame.width}
        tables["events"] = event_rows(
            self.run,
            scope.draws(Purpose.EVENTS),
            tables,
            payments=payments,
            aftermath=aftermath,
            paid_out=paid_out,
        )
        in_order = [
            table.name for table in CAPTURED_TABLES if table.name in tables and not tables[table.name].is_empty()
        ]
        return Books({name: with_times(tables[name]) for name in in_order}, _truth(payments))


def _truth(payments: Payments) -> pl.DataFrame:
    return payments.charges.select(
        pl.col("id").alias("charge_id"), payments.intents["kind"].gather(payments.charges["intent"])
    )


def _last_seen(scope: Scope, payments: Payments) -> Ints:
    """The last moment that each customer of the batch has to do with; who subscribes stays for good."""
    seen = np.full(scope.customers.height, -1, dtype=np.int64)
    known = payments.intents.filter(pl.col("customer") >= 0)
    far = pl.when(pl.col("invoice") >= 0).then(scope.run.end).otherwise(pl.col("at"))
    np.maximum.at(
        seen, known["customer"].to_numpy() - scope.first_customer[0], known.select(far).to_series().to_numpy()
    )
    return seen


def _delinquent(subscriptions: pl.DataFrame) -> Ints:
    return subscriptions.filter(pl.col("status") == "past_due")["customer"].to_numpy()
