"""The figures of each chart, read off the page in a browser, are those that SQL gives."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from stripe_platform.settings import Settings
from stripe_platform.warehouse.query import query_rows
from stripe_platform_tests.integration.dashboard.published_marts import publish_marts
from stripe_platform_tests.integration.dashboard.reading import (
    CHARTS,
    LIMIT_MS,
    charts_of,
    marks_of,
    open_page,
    table_of,
)


@pytest.fixture
def opened(served: Settings, page: Page) -> Page:
    publish_marts(served)
    open_page(page, served)
    expect(charts_of(page)).to_have_count(CHARTS, timeout=LIMIT_MS)
    return page


def _minor(text: str) -> int:
    amount, currency = text.split()
    assert currency == "EUR"
    assert re.fullmatch(r"-?[\d,]+\.\d\d", amount)
    return int(re.sub(r"[,.]", "", amount))


def _count(text: str) -> int:
    return int(text.replace(",", ""))


def _rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    found = query_rows(settings, sql)
    assert found
    return found


def test_the_daily_revenue_is_that_of_the_mart(opened: Page, served: Settings) -> None:
    title = "Daily revenue"
    expected = _rows(
        served,
        "select cast(day as varchar), sum(gross_reporting), sum(net_reporting) from marts.daily_revenue "
        "group by day order by day desc",
    )
    shown = [(row["day"], _minor(row["gross"]), _minor(row["net"])) for row in table_of(opened, title)]
    assert shown == expected
    assert marks_of(opened, title, "bar") == {f"{day}, gross: {gross / 100:,.2f} EUR" for day, gross, _ in expected}
    assert marks_of(opened, title, "point") == {f"{day}, net: {net / 100:,.2f} EUR" for day, _, net in expected}
    assert any("values from January 15, 2026 to" in axis for axis in marks_of(opened, title, "axis"))
    total = sum(gross for _, gross, _ in expected)
    expect(opened.get_by_text(f"gross {total / 100:,.2f} EUR")).to_be_visible()
    expect(opened.get_by_text("Without an exchange rate, and so left out: 3 rows.")).to_be_visible()


def test_the_authorization_rates_are_those_of_the_mart(opened: Page, served: Settings) -> None:
    title = "Authorization rate by card brand and country"
    expected = _rows(
        served,
        """
        select
            coalesce(card_brand, 'no card'), coalesce(card_country, 'no card'),
            sum(attempted), sum(sent_to_network), sum(authorized),
            coalesce(printf('%.2f%%', 100.0 * sum(authorized) / nullif(sum(sent_to_network), 0)), 'n/a')
        from marts.authorization_rates group by card_brand, card_country
        """,
    )
    counts = ("attempted", "sent to the network", "authorized")
    shown = [
        (row["card brand"], row["card country"], *(_count(row[name]) for name in counts), row["authorization rate"])
        for row in table_of(opened, title)
    ]
    assert sorted(shown) == sorted(expected)
    assert marks_of(opened, title, "rect mark") == {
        f"{brand}, {country}: {rate}, {authorized} of {sent}"
        for brand, country, _, sent, authorized, rate in expected
        if sent
    }


def test_the_dispute_rates_are_those_of_the_mart_and_the_limits_are_drawn(opened: Page, served: Settings) -> None:
    title = "Dispute rate against the networks' limits"
    expected = _rows(
        served,
        """
        select
            strftime(month, '%Y-%m'), card_brand, sum(disputes), sum(successful_charges),
            printf('%.2f%%', 100.0 * sum(disputes) / sum(successful_charges)),
            count(distinct merchant_id) filter (where exceeds_limit)
        from marts.dispute_rates group by month, card_brand
        """,
    )
    shown = [
        (
            *(row["month"], row["card brand"], _count(row["disputes"]), _count(row["successful charges"])),
            *(row["dispute rate"], int(row["merchants over the limit"])),
        )
        for row in table_of(opened, title)
    ]
    assert sorted(shown) == sorted(expected)
    as_networks_count = """
        select month, 'visa (VAMP)' as series, watched_events as disputes, watched_charges as charges
        from marts.dispute_rates where card_brand = 'visa'
        union all
        select month, 'mastercard (ECM)', watched_events, watched_charges
        from marts.dispute_rates where card_brand = 'mastercard'
        union all
        select month, 'other brands', disputes, successful_charges
        from marts.dispute_rates where card_brand not in ('visa', 'mastercard')
    """
    drawn = _rows(
        served,
        "select strftime(month, '%Y-%m'), series, sum(disputes), sum(charges) "
        f"from ({as_networks_count}) group by month, series having sum(charges) > 0",
    )
    assert marks_of(opened, title, "point") == {
        f"{month}, {series}: {disputes / charges:.2%}, {disputes:,} of {charges:,}"
        for month, series, disputes, charges in drawn
    }
    assert marks_of(opened, title, "rule mark") == {"limit 1.5% (mastercard ECM, visa VAMP)"}


def test_the_movements_of_the_mrr_are_those_of_the_mart(opened: Page, served: Settings) -> None:
    title = "Movement of the monthly recurring revenue"
    expected = _rows(
        served,
        "select strftime(month, '%Y-%m'), movement, sum(change_reporting) from marts.mrr group by month, movement",
    )
    table = table_of(opened, title)
    movements = {movement for _, movement, _ in expected}
    shown = [(row["month"], movement, _minor(row[movement])) for row in table for movement in movements]
    assert sorted(shown) == sorted(expected)
    assert _rows(
        served, "select strftime(month, '%Y-%m'), sum(mrr_reporting) from marts.mrr group by month order by month desc"
    ) == [(row["month"], _minor(row["MRR"])) for row in table]
    assert marks_of(opened, title, "bar") == {
        f"{month}, {movement}: {change / 100:,.2f} EUR" for month, movement, change in expected
    }
    assert any("values: June 2026, July 2026" in axis for axis in marks_of(opened, title, "axis"))


def test_the_cohorts_are_those_of_the_mart(opened: Page, served: Settings) -> None:
    title = "Customers who pay again, by cohort"
    expected = _rows(
        served,
        "select strftime(cohort_month, '%Y-%m'), '+' || months_since, printf('%.2f%%', 100 * retention), "
        "retained, customers from marts.customer_cohorts",
    )
    shown = {
        (row["cohort"], age, rate)
        for row in table_of(opened, title)
        for age, rate in row.items()
        if age.startswith("+") and rate != "n/a"
    }
    assert shown == {(cohort, age, rate) for cohort, age, rate, _, _ in expected}
    assert marks_of(opened, title, "rect mark") == {
        f"{age}, {cohort}: {rate}, {retained} of {customers}" for cohort, age, rate, retained, customers in expected
    }


def test_a_shorter_period_counts_back_from_the_last_day(opened: Page, served: Settings) -> None:
    opened.get_by_text("3 months", exact=True).click()
    ((first, days),) = _rows(
        served,
        "select cast(min(day) as varchar), count(distinct day) from marts.daily_revenue "
        "where day > (select max(day) from marts.daily_revenue) - interval 3 months",
    )
    expect(opened.get_by_text(re.compile(rf"^{first} to "))).to_be_visible()
    assert len(table_of(opened, "Daily revenue")) == days
    assert {row["month"] for row in table_of(opened, "Dispute rate against the networks' limits")} == {
        "2026-09",
        "2026-10",
        "2026-11",
    }


def test_a_publication_replaced_under_an_open_page_is_what_a_reload_shows(opened: Page, served: Settings) -> None:
    def gross() -> int:
        ((total,),) = _rows(served, "select sum(gross_reporting) from marts.daily_revenue")
        return int(total)

    before = gross()
    expect(opened.get_by_text(f"gross {before / 100:,.2f} EUR")).to_be_visible()
    publish_marts(served, factor=3)
    assert gross() != before
    opened.reload()
    expect(opened.get_by_text(f"gross {gross() / 100:,.2f} EUR")).to_be_visible(timeout=LIMIT_MS)
    expect(opened.get_by_text(f"gross {before / 100:,.2f} EUR")).to_have_count(0)
