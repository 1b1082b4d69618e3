"""The money of a simulated history adds up, whatever its size, length and seed."""

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_platform.oltp.fees import DISPUTE_FEE, charge_fee
from stripe_platform.oltp.simulator.payouts import payable

# Few values, so that the tests of a run share the histories.
runs = st.tuples(st.sampled_from((1, 9, 80, 700, 2500)), st.sampled_from((1, 10, 45, 120)), st.integers(0, 3))
for_all = given(run=runs)
some = settings(max_examples=15, deadline=None, derandomize=True)

MULTIPLES = {"kwd": 10}


def joined(left: Any, right: Any, **names: Any) -> Any:
    return left.join(right, how="left", **names)


@some
@for_all
def test_there_are_as_many_payments_as_asked_for(history: Any, run: tuple[int, int, int]) -> None:
    assert history(*run)["payment_intents"].height == run[0]


@some
@for_all
def test_a_movement_changes_the_balance_by_its_amount_less_the_fee(history: Any, run: tuple[int, int, int]) -> None:
    ledger = history(*run)["balance_transactions"]
    if ledger.width:
        assert (ledger["net"] == ledger["amount"] - ledger["fee"]).all()


@some
@for_all
def test_the_parts_of_a_fee_add_up_to_it_and_it_is_what_the_price_list_says(
    history: Any, run: tuple[int, int, int]
) -> None:
    made = history(*run)
    if not made["fee_details"].width:
        return
    parts = made["fee_details"].group_by("balance_transaction_id").agg(pl.col("amount").sum().alias("parts"))
    ledger = joined(made["balance_transactions"], parts, left_on="id", right_on="balance_transaction_id")
    assert (ledger["fee"] == ledger["parts"].fill_null(0)).all()
    charged = ledger.filter(pl.col("type") == "charge")
    assert charged["fee"].to_list() == [charge_fee(amount) for amount in charged["amount"]]
    assert set(ledger.filter(pl.col("reporting_category") == "dispute")["fee"]) <= {DISPUTE_FEE}


@some
@for_all
def test_a_charge_was_captured_refunded_and_disputed_as_its_rows_say(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    charges = made["charges"]
    if not charges.width:
        return
    assert (charges["amount_captured"] <= charges["amount"]).all()
    captured = (
        made["balance_transactions"].filter(pl.col("type") == "charge") if made["balance_transactions"].width else None
    )
    if captured is not None:
        taken = dict(zip(captured["source_id"], captured["amount"], strict=True))
        assert taken == dict(charges.filter(pl.col("amount_captured") > 0).select("id", "amount_captured").iter_rows())
    refunded: dict[str, int] = {}
    if made["refunds"].width:
        live = made["refunds"].filter(~pl.col("status").is_in(["failed", "canceled"]))
        refunded = dict(live.group_by("charge_id").agg(pl.col("amount").sum()).iter_rows())
    assert dict(charges.filter(pl.col("amount_refunded") > 0).select("id", "amount_refunded").iter_rows()) == refunded
    full = charges["amount_captured"] > 0
    assert (charges["refunded"] == (full & (charges["amount_refunded"] == charges["amount_captured"]))).all()
    disputed = set(made["disputes"]["charge_id"]) if made["disputes"].width else set()
    assert set(charges.filter("disputed")["id"]) == disputed


@some
@for_all
def test_an_intent_received_what_its_charges_captured(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    if not made["charges"].width:
        return
    captured = made["charges"].group_by("payment_intent_id").agg(pl.col("amount_captured").sum())
    intents = joined(made["payment_intents"], captured, left_on="id", right_on="payment_intent_id")
    assert (intents["amount_received"] == intents["amount_captured"].fill_null(0)).all()
    assert ((intents["status"] == "succeeded") == (intents["amount_received"] > 0)).all()
    latest = intents.drop_nulls("latest_charge_id").join(
        made["charges"], left_on="latest_charge_id", right_on="id", how="inner"
    )
    assert (latest["payment_intent_id"] == latest["id"]).all()
    assert latest.height == intents["latest_charge_id"].count()


@some
@for_all
def test_a_payout_is_the_sum_of_the_movements_that_name_it(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    if not made["payouts"].width:
        return
    ledger = made["balance_transactions"]
    paid = ledger.filter(pl.col("payout_id").is_not_null())
    sums = paid.group_by("payout_id").agg(
        pl.col("net").sum(),
        pl.col("available_on").max(),
        pl.col("merchant_id").n_unique(),
        pl.col("currency").n_unique(),
    )
    payouts = joined(made["payouts"], sums, left_on="id", right_on="payout_id")
    assert (payouts["amount"] == payouts["net"]).all()
    assert (payouts["available_on"] <= payouts["created"]).all()
    assert (payouts["amount"] > 0).all()
    for currency, multiple in MULTIPLES.items():
        assert (payouts.filter(pl.col("currency") == currency)["amount"] % multiple == 0).all()
    own = ledger.filter(pl.col("type") == "payout")
    assert own["payout_id"].null_count() == own.height
    assert dict(own.select("source_id", "amount").iter_rows()) == dict(
        payouts.select("id", -pl.col("amount")).iter_rows()
    )
    failed = payouts.filter(pl.col("status") == "failed")
    back = ledger.filter(pl.col("type") == "payout_failure")
    assert dict(back.select("source_id", "amount").iter_rows()) == dict(failed.select("id", "amount").iter_rows())


@some
@for_all
def test_no_payout_overdraws_a_merchant(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    if not made["payouts"].width:
        return
    ledger = made["balance_transactions"].sort("merchant_id", "available_on", "created")
    available = ledger.with_columns(balance=pl.col("net").cum_sum().over("merchant_id"))
    assert (available.filter(pl.col("type") == "payout")["balance"] >= 0).all()


@some
@for_all
def test_invoices_are_the_sum_of_their_lines_and_are_paid_by_their_payment(
    history: Any, run: tuple[int, int, int]
) -> None:
    made = history(*run)
    invoices = made["invoices"]
    if not invoices.width:
        return
    lines = made["invoice_lines"].group_by("invoice_id").agg(pl.col("amount").sum(), pl.len())
    invoices = joined(invoices, lines, left_on="id", right_on="invoice_id")
    assert (invoices["subtotal"] == invoices["amount"]).all()
    assert (invoices["total"] == invoices["subtotal"] + invoices["tax"]).all()
    received = made["payment_intents"].drop_nulls("invoice_id").select("invoice_id", "amount_received")
    assert received["invoice_id"].is_unique().all()
    invoices = joined(invoices, received, left_on="id", right_on="invoice_id")
    assert (invoices["amount_paid"] == invoices["amount_received"].fill_null(0)).all()
    paid = invoices["status"] == "paid"
    assert (invoices.filter(paid)["amount_paid"] == invoices.filter(paid)["total"]).all()
    assert (invoices.filter(~paid)["amount_paid"] == 0).all()
    assert invoices.drop_nulls("number").select("merchant_id", "number").is_unique().all()


@some
@for_all
def test_every_movement_has_its_source(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    ledger = made["balance_transactions"]
    if not ledger.width:
        return
    for source, table in (("charge", "charges"), ("refund", "refunds"), ("dispute", "disputes"), ("payout", "payouts")):
        of_it = ledger.filter(pl.col("source_type") == source)
        known = set(made[table]["id"]) if made[table].width else set()
        assert set(of_it["source_id"]) <= known
    won = set(made["disputes"].filter(pl.col("status") == "won")["id"]) if made["disputes"].width else set()
    assert set(ledger.filter(pl.col("reporting_category") == "dispute_reversal")["source_id"]) == won


@some
@for_all
def test_amounts_are_multiples_of_what_their_currency_is_charged_in(history: Any, run: tuple[int, int, int]) -> None:
    made = history(*run)
    for table in ("payment_intents", "charges", "refunds", "disputes", "prices", "invoice_lines"):
        if not made[table].width:
            continue
        dinars = made[table].filter(pl.col("currency") == "kwd")
        for column in {"amount", "amount_captured", "amount_refunded", "unit_amount"} & set(dinars.columns):
            assert (dinars[column] % 10 == 0).all(), (table, column)


def test_fees_are_taxed_in_some_countries(quarter: Any) -> None:
    parts = (
        quarter["fee_details"].group_by("balance_transaction_id").agg(pl.col("amount").sum().alias("parts"), pl.len())
    )
    ledger = joined(quarter["balance_transactions"], parts, left_on="id", right_on="balance_transaction_id")
    assert ledger.filter(pl.col("len") == 2).height
    assert (ledger["fee"] == ledger["parts"].fill_null(0)).all()


@given(
    net=st.lists(st.integers(-500, 500), max_size=12),
    multiple=st.sampled_from((1, 10, 100)),
)
def test_paid_out_is_the_longest_run_that_is_positive_a_multiple_and_no_more_than_there_is(
    net: list[int], multiple: int
) -> None:
    count = payable(net, multiple)

    def can_be_paid(places: int) -> bool:
        amount = sum(net[:places])
        return amount > 0 and amount % multiple == 0 and amount <= sum(net)

    assert count == 0 or can_be_paid(count)
    assert not any(can_be_paid(more) for more in range(count + 1, len(net) + 1))
