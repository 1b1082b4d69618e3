"""What happened, happened in an order that makes sense, and before the end of the run."""

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from stripe_platform.oltp.simulator import payouts
from stripe_platform.oltp.simulator.books import World
from stripe_platform.oltp.simulator.run import Run
from stripe_platform_tests.unit.oltp.simulator.conftest import UNTIL

RUNS = [(700, 45, 1), (2500, 120, 3), (80, 10, 2)]
# When whatever is meant to be in the future is no contradiction.
PLANNED = {
    "available_on", "arrival_date", "evidence_due_by", "current_period_end", "period_end", "trial_end", "cancel_at",
}  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_nothing_has_happened_after_the_end(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    seen = 0
    for table, frame in made.tables.items():
        for column, kind in frame.schema.items():
            if isinstance(kind, pl.Datetime) and column not in PLANNED:
                latest = frame[column].max()
                assert latest is None or latest < made.end, (table, column)
                seen += 1
    assert seen > 30


def test_a_payout_whose_failure_would_come_with_the_end_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is the first instant of a month: the run makes no partition for it."""
    monkeypatch.setattr(payouts, "_FAILS", 1)
    run = Run(300, 20, 2, UNTIL)
    books = World.of(run).books(0).tables

    statuses = books["payouts"].group_by(pl.col("created").dt.date()).agg(pl.col("status").unique())
    assert statuses.filter(pl.col("created") == UNTIL - timedelta(days=4))["status"].to_list() == [["failed"]]
    assert statuses.filter(pl.col("created") == UNTIL - timedelta(days=3))["status"].to_list() == [["paid"]]
    assert books["balance_transactions"].filter(pl.col("created") > run.last_instant).is_empty()


@pytest.mark.parametrize("run", RUNS)
def test_payments_lie_within_the_run(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    for table in ("payment_intents", "charges", "balance_transactions", "events"):
        assert made[table]["created"].min() >= made.start, table


@pytest.mark.parametrize("run", RUNS)
def test_what_follows_a_charge_comes_after_it(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    followers = 0
    for table in ("refunds", "disputes", "reviews", "early_fraud_warnings"):
        frame = made[table]
        if frame.width:
            assert (frame["created"] >= frame["charge_created"]).all(), table
            followers += frame.height
    assert followers
    tries = made["charges"].join(
        made["payment_intents"].select(payment_intent_id="id", wished="created"), on="payment_intent_id"
    )
    assert (tries["created"] > tries["wished"]).all()


@pytest.mark.parametrize("run", RUNS)
def test_nobody_pays_before_they_are_a_customer_or_with_a_card_not_yet_seen(
    history: Any, run: tuple[int, int, int]
) -> None:
    made = history(*run)
    charges = made["charges"].join(made["customers"].select(customer_id="id", since="created"), on="customer_id")
    assert charges.height
    assert (charges["created"] > charges["since"]).all()
    methods = made["payment_methods"].join(
        made["card_fingerprints"].select(card_fingerprint="fingerprint", seen="created"), on="card_fingerprint"
    )
    assert methods.height == made["payment_methods"].height
    assert (methods["created"] >= methods["seen"]).all()
    merchants = made["customers"].join(made["merchants"].select(merchant_id="id", opened="created"), on="merchant_id")
    assert (merchants["created"] >= merchants["opened"]).all()


@pytest.mark.parametrize("run", RUNS)
def test_money_can_be_paid_out_two_days_after_its_capture(history: Any, run: tuple[int, int, int]) -> None:
    ledger = history(*run)["balance_transactions"].filter(pl.col("type") == "charge")
    assert set(ledger["available_on"] - ledger["created"]) == {timedelta(days=2)}
    due = ledger["available_on"] <= history(*run).end
    assert ((ledger["status"] == "available") == due).all()


@pytest.mark.parametrize("run", RUNS)
def test_periods_of_a_subscription_follow_one_another(history: Any, run: tuple[int, int, int]) -> None:
    invoices = history(*run)["invoices"].filter(pl.col("billing_reason") != "subscription_update")
    ordered = invoices.sort("subscription_id", "period_start")
    following = ordered.with_columns(before=pl.col("period_end").shift().over("subscription_id")).drop_nulls("before")
    assert (following["period_start"] == following["before"]).all()
