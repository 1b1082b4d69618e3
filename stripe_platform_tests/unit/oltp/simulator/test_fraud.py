"""Fraud of several kinds: where it is, what it looks like, and that nobody knows at once."""

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from stripe_platform.oltp.simulator.fraud import Kind


def charges_of(made: Any, *kinds: Kind) -> Any:
    frauds = made.truth.filter(pl.col("kind").is_in([int(kind) for kind in kinds]))
    charges: Any = made["charges"].join(frauds, left_on="id", right_on="charge_id")
    return charges.join(
        made["payment_methods"].select(payment_method_id="id", card="card_fingerprint"), on="payment_method_id"
    )


FRAUDULENT = [kind for kind in Kind if kind != Kind.HONEST]


def test_about_one_charge_in_a_hundred_is_fraud_and_every_kind_is_there(quarter: Any) -> None:
    frauds = quarter.truth.filter(pl.col("kind") != int(Kind.HONEST))
    assert 0.006 < frauds.height / quarter.truth.height < 0.015
    assert set(frauds["kind"]) == {int(kind) for kind in FRAUDULENT}


def test_labels_come_days_later_and_most_frauds_get_one(quarter: Any) -> None:
    paid = charges_of(quarter, *FRAUDULENT).filter(pl.col("amount_captured") > 0)
    labels = (
        pl.concat(
            [
                quarter["disputes"].filter(pl.col("reason") == "fraudulent").select("charge_id", "created"),
                quarter["early_fraud_warnings"].select("charge_id", "created"),
            ]
        )
        .group_by("charge_id")
        .agg(pl.col("created").min().alias("known"))
    )
    labelled = paid.join(labels, left_on="id", right_on="charge_id")
    delay = labelled["known"] - labelled["created"]
    assert delay.min() >= timedelta(days=1)
    assert delay.max() <= timedelta(days=31)
    assert timedelta(days=4) < delay.median() < timedelta(days=12)
    old = paid.filter(pl.col("created") < quarter.end - timedelta(days=35))
    assert old.join(labels, left_on="id", right_on="charge_id", how="semi").height > old.height / 2
    assert labelled.height < paid.height


def test_card_testing_is_many_cards_and_small_amounts_in_minutes(quarter: Any) -> None:
    tested = charges_of(quarter, Kind.CARD_TESTING)
    bursts = tested.group_by("merchant_id", "device_id").agg(
        pl.col("card").n_unique(),
        (pl.col("created").max() - pl.col("created").min()).alias("lasted"),
        pl.col("paid").mean(),
    )
    assert (bursts["card"] >= 10).sum() >= 2
    assert bursts["lasted"].max() < timedelta(hours=1)
    assert tested["paid"].mean() < 0.5


def test_a_stolen_card_is_used_at_several_merchants_for_ever_more(quarter: Any) -> None:
    stolen = charges_of(quarter, Kind.STOLEN_CARD).sort("created")
    bursts = stolen.group_by("card").agg(
        pl.col("merchant_id").n_unique(), (pl.col("created").max() - pl.col("created").min()).alias("lasted")
    )
    assert (bursts["merchant_id"] >= 3).mean() > 0.5
    assert bursts["lasted"].median() < timedelta(hours=8)


def test_amounts_out_of_habit_are_many_times_what_the_customer_pays(quarter: Any) -> None:
    strange = charges_of(quarter, Kind.OUT_OF_HABIT)
    usual = charges_of(quarter, Kind.HONEST).group_by("customer_id").agg(pl.col("amount").mean().alias("usual"))
    times = strange.join(usual, on="customer_id").select(pl.col("amount") / pl.col("usual")).to_series()
    assert times.median() > 4


def test_a_compromised_merchant_is_so_for_weeks(quarter: Any) -> None:
    leaked = charges_of(quarter, Kind.COMPROMISED_MERCHANT)
    lasted = leaked.group_by("merchant_id").agg(pl.col("created").max() - pl.col("created").min())["created"]
    assert 1 <= leaked["merchant_id"].n_unique() < quarter["merchants"].height / 10
    assert lasted.max() < timedelta(days=30)


@pytest.mark.parametrize("kind", FRAUDULENT)
def test_no_table_says_what_is_fraud(quarter: Any, kind: Kind) -> None:
    for table, frame in quarter.tables.items():
        assert not {"kind_of_fraud", "fraud", "episode", "origin"} & set(frame.columns), table
    honest_guests = charges_of(quarter, Kind.HONEST)["customer_id"].null_count()
    assert honest_guests > charges_of(quarter, kind)["customer_id"].null_count()
