"""A simulated quarter looks like payments: rhythm, growth, approval, 3D Secure, people who do not exist."""

import ipaddress
import re
from typing import Any

import polars as pl
import pytest

DOCUMENTATION = [
    ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def share(frame: pl.DataFrame, condition: pl.Expr) -> float:
    return frame.filter(condition).height / frame.height


def test_the_same_arguments_make_the_same_rows_and_others_make_others(history: Any) -> None:
    first = history(700, 45, 1)
    again = history.__wrapped__(700, 45, 1)

    assert first.tables.keys() == again.tables.keys()
    for table, frame in first.tables.items():
        assert frame.equals(again[table]), table
    for other in ((700, 45, 2), (701, 45, 1), (700, 46, 1)):
        for table in ("merchants", "customers", "payment_intents", "charges", "events"):
            assert not set(first[table]["id"]) & set(history(*other)[table]["id"]), (other, table)
        cards = set(history(*other)["card_fingerprints"]["fingerprint"])
        assert not set(first["card_fingerprints"]["fingerprint"]) & cards


def test_every_key_is_unique(quarter: Any) -> None:
    for table, frame in quarter.tables.items():
        if "id" in frame.columns:
            assert frame["id"].is_unique().all(), table
    assert quarter["card_fingerprints"]["fingerprint"].is_unique().all()
    assert quarter["payment_intents"].select("merchant_id", "idempotency_key").is_unique().all()


def test_every_currency_that_is_not_written_in_hundredths_is_paid_in(quarter: Any, history: Any) -> None:
    assert {"eur", "usd", "gbp", "jpy", "kwd"} <= set(quarter["charges"]["currency"])
    assert {"eur", "usd", "gbp", "jpy", "kwd"} <= set(history(700, 45, 1)["charges"]["currency"])


def test_german_payments_are_made_by_day_and_more_of_them_in_the_end(quarter: Any) -> None:
    german = quarter["merchants"].filter(pl.col("country") == "DE").select(merchant_id="id")
    intents = (
        quarter["payment_intents"].join(german, on="merchant_id", how="semi").filter(pl.col("invoice_id").is_null())
    )
    hours = intents["created"].dt.hour()
    assert hours.is_between(1, 4).sum() < hours.is_between(15, 18).sum() / 4
    middle = quarter.start + (quarter.end - quarter.start) / 2
    assert 0.53 < share(quarter["payment_intents"], pl.col("created") >= middle) < 0.72


def test_cinemas_are_paid_on_weekends_and_software_on_workdays(quarter: Any) -> None:
    shares = {}
    for mcc in ("7832", "5734"):
        known = quarter["merchants"].filter(pl.col("mcc") == mcc).select(merchant_id="id")
        intents = quarter["payment_intents"].join(known, on="merchant_id", how="semi")
        shares[mcc] = share(intents.filter(pl.col("invoice_id").is_null()), pl.col("created").dt.weekday() >= 6)
    assert shares["7832"] > 0.38
    assert shares["5734"] < 0.25


def test_about_seven_of_eight_charges_are_approved(quarter: Any) -> None:
    assert 0.85 <= share(quarter["charges"], pl.col("paid")) <= 0.90
    declined = quarter["charges"].filter(~pl.col("paid"))
    codes = declined["decline_code"].value_counts(sort=True)
    assert codes["decline_code"][0] == "insufficient_funds"
    assert {"do_not_honor", "generic_decline", "expired_card", "incorrect_cvc", "stolen_card"} <= set(
        codes["decline_code"]
    )
    assert set(declined["failure_code"]) == {"card_declined", "expired_card", "incorrect_cvc", "processing_error"}


def test_an_intent_has_no_more_than_three_charges_and_some_have_none(quarter: Any) -> None:
    tries = quarter["charges"].group_by("payment_intent_id").len()["len"]
    assert set(tries) == {1, 2, 3}
    without = quarter["payment_intents"].filter(pl.col("latest_charge_id").is_null())
    assert 0.01 < without.height / quarter["payment_intents"].height < 0.05
    assert quarter["payment_intents"].filter(pl.col("status") == "requires_capture").height


def test_more_card_holders_are_authenticated_in_europe(quarter: Any) -> None:
    charges = quarter["charges"].join(
        quarter["merchants"].select(merchant_id="id", country="country"), on="merchant_id"
    )
    asked = pl.col("three_d_secure_result").is_not_null()
    german, american = (share(charges.filter(pl.col("country") == code), asked) for code in ("DE", "US"))
    assert german > 3 * american > 0


def test_what_is_too_risky_is_blocked_and_what_looks_odd_is_looked_at(quarter: Any) -> None:
    outcomes = quarter["charge_outcomes"]
    assert outcomes.height == quarter["charges"].height
    assert (outcomes.filter(pl.col("risk_score") >= 75)["type"] == "blocked").all()
    assert (outcomes.filter(pl.col("type") == "blocked")["network_status"] == "not_sent_to_network").all()
    levels = outcomes.group_by("risk_level").agg(pl.col("risk_score").min().alias("low"), pl.col("risk_score").max())
    bounds = {level: (low, high) for level, low, high in levels.iter_rows()}
    assert bounds["normal"][1] <= 64
    assert 65 <= bounds["elevated"][0] <= bounds["elevated"][1] <= 74 < bounds["highest"][0]
    looked_at = outcomes.filter(pl.col("type") == "manual_review")
    assert set(looked_at["charge_id"]) == set(quarter["reviews"]["charge_id"])


def test_one_card_is_used_at_several_merchants(quarter: Any) -> None:
    held = quarter["payment_methods"].join(
        quarter["customers"].select(customer_id="id", merchant_id="merchant_id"), on="customer_id"
    )
    merchants = held.group_by("card_fingerprint").agg(pl.col("merchant_id").n_unique())["merchant_id"]
    assert (merchants > 1).mean() > 0.2


def test_subscriptions_are_in_every_state_that_time_brings(quarter: Any) -> None:
    assert {"active", "trialing", "canceled", "past_due"} <= set(quarter["subscriptions"]["status"])
    assert {"subscription_create", "subscription_cycle", "subscription_update"} == set(
        quarter["invoices"]["billing_reason"]
    )
    assert {"paid", "open", "uncollectible"} <= set(quarter["invoices"]["status"])
    assert quarter["invoice_lines"].filter("proration")["amount"].min() < 0
    ended = quarter["subscriptions"].filter(pl.col("status") == "canceled").group_by("customer_id").len()
    again = quarter["subscriptions"].join(ended, on="customer_id", how="semi").group_by("customer_id").len()
    assert (again["len"] > 1).any()


def test_payouts_arrive_are_on_their_way_or_fail(quarter: Any) -> None:
    assert {"paid", "in_transit", "failed"} == set(quarter["payouts"]["status"])


def test_nobody_in_it_exists(quarter: Any) -> None:
    customers = quarter["customers"]
    assert customers["email"].str.ends_with("@example.com").all()
    assert all(re.fullmatch(r"\+120255501\d\d", phone) for phone in customers["phone"])
    assert quarter["addresses"]["line1"].str.ends_with("Example Street").all()
    for table in ("charges", "reviews"):
        for ip in quarter[table]["ip"].unique():
            assert any(ipaddress.ip_address(ip) in net for net in DOCUMENTATION), ip


def test_events_tell_ids_amounts_and_states_and_nothing_of_a_person(quarter: Any) -> None:
    events = quarter["events"]
    payloads = (
        events["payload"]
        .sample(2000, seed=1)
        .str.json_decode(
            pl.Struct(dict.fromkeys(("id", "amount", "amount_captured", "currency", "status", "charge_id"), pl.String))
        )
    )
    assert payloads.struct.field("id").null_count() == 0
    assert not events["payload"].str.contains("@|Example|2001:db8|device_").any()
    names = r'^\{("(id|amount|amount_captured|currency|status|charge_id)":("[a-z0-9_]*"|\d+),?)+\}$'
    assert events["payload"].str.contains(names).all()
    assert {"charge.succeeded", "charge.failed", "payment_intent.created", "payout.paid", "invoice.paid"} <= set(
        events["type"]
    )


@pytest.mark.parametrize("table", ["customers"])
def test_a_few_customers_have_left_and_do_nothing_afterwards(quarter: Any, table: str) -> None:
    left = quarter[table].drop_nulls("deleted_at")
    assert 0 < left.height < quarter[table].height / 20
    charges = quarter["charges"].join(left.select(customer_id="id", left="deleted_at"), on="customer_id")
    assert (charges["created"] < charges["left"]).all()
