from datetime import date

import pytest

from stripe_platform.dashboard import figures
from stripe_platform.dashboard.queries import Authorization, Cohort, Disputes, MrrMovement, Revenue

JULY, AUGUST = date(2026, 7, 1), date(2026, 8, 1)


@pytest.mark.parametrize(
    ("amount", "exponent", "text"), [(123456, 2, "1,234.56 EUR"), (-123456, 3, "-123.456 EUR"), (1234, 0, "1,234 EUR")]
)
def test_amounts_have_the_decimals_of_their_currency(amount: int, exponent: int, text: str) -> None:
    assert figures.money(amount, exponent) == text


def test_rows_without_an_exchange_rate_are_told() -> None:
    rows = [Revenue(JULY, 1000, 900, 2, 2), Revenue(AUGUST, 2000, 1800, 1, 2)]
    assert figures.revenue_summary(rows) == (
        "2026-07-01 to 2026-08-01: gross 30.00 EUR, net 27.00 EUR. Without an exchange rate, and so left out: 3 rows."
    )
    assert "exchange rate" not in figures.revenue_summary([Revenue(JULY, 1000, 900, 0, 2)])


def test_of_nothing_sent_to_the_network_there_is_no_rate() -> None:
    (row,) = figures.authorization_table([Authorization(None, None, 3, 0, 0)])
    assert row["card brand"] == row["card country"] == "no card"
    assert (row["attempted"], row["authorization rate"]) == ("3", "n/a")


def test_the_last_month_s_disputes_are_summed_over_the_brands_and_who_is_over_a_limit_is_named() -> None:
    rows = [
        Disputes(JULY, "visa", "VAMP", 0.015, 100, 50, 0, 50, 80, 3),
        Disputes(AUGUST, "mastercard", "ECM", 0.015, 300, 6, 1, 6, 200, 2),
        Disputes(AUGUST, "amex", None, None, 100, 2, 1, 2, 100, 0),
    ]
    assert figures.disputes_summary(rows) == (
        "2026-08: 8 disputes to 400 successful charges (2.00%); merchants over the limit: mastercard 2."
    )
    columns = ("month", "dispute rate", "as the network counts", "limit")
    assert [tuple(row[name] for name in columns) for row in figures.disputes_table(rows)] == [
        ("2026-08", "2.00%", "3.00%", "1.50% (ECM)"),
        ("2026-08", "2.00%", "n/a", "n/a"),
        ("2026-07", "50.00%", "62.50%", "1.50% (VAMP)"),
    ]


def test_a_month_without_a_movement_has_none_of_it() -> None:
    rows = [
        MrrMovement(JULY, "new", 1, 500, 500, 0, 2),
        MrrMovement(AUGUST, "churn", 1, -200, 0, 0, 2),
        MrrMovement(AUGUST, "unchanged", 1, 0, 300, 0, 2),
    ]
    assert figures.mrr_summary(rows) == ("2026-08: MRR 3.00 EUR, changed by -2.00 EUR in the month (churn -2.00 EUR).")
    august, july = figures.mrr_table(rows)
    assert (july["new"], july["churn"], july["MRR"]) == ("5.00 EUR", "0.00 EUR", "5.00 EUR")
    assert (august["new"], august["churn"], august["MRR"]) == ("0.00 EUR", "-2.00 EUR", "3.00 EUR")


def test_months_that_a_cohort_has_not_seen_yet_are_blank_in_its_row() -> None:
    rows = [Cohort(JULY, 0, 40, 40, 1.0), Cohort(JULY, 1, 40, 10, 0.25), Cohort(AUGUST, 0, 20, 20, 1.0)]
    assert figures.cohorts_table(rows) == [
        {"cohort": "2026-07", "customers": "40", "+0": "100.00%", "+1": "25.00%"},
        {"cohort": "2026-08", "customers": "20", "+0": "100.00%", "+1": "n/a"},
    ]
    assert "Of 40 customers in 1 cohorts, 10 paid again" in figures.cohorts_summary(rows)
    assert figures.cohorts_summary(rows[2:]) == "No cohort is a month old yet."
