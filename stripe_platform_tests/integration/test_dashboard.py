"""The dashboard as `make up` serves it, read in a real browser."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from stripe_platform.local.dashboard import DASHBOARD
from stripe_platform.local.ports import holder_of
from stripe_platform.local.server import log_file
from stripe_platform.settings import Settings
from stripe_platform.warehouse.published import published_path
from stripe_platform.warehouse.query import query_rows
from stripe_platform_tests.integration.published_marts import MARTS, publish_marts

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIMIT_MS = 60_000
CHARTS = 5
# Seen by nobody: a row of a mart that cannot be read.
CANARY = "canary-4242424242424242"
FAR_WEST = "Pacific/Pago_Pago"


def _find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def browser_path() -> str:
    if _find_browser() is None and os.environ.get("CI") and os.geteuid() == 0:
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "--quiet", *command], check=True, timeout=280)
    path = _find_browser()
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on PATH (`apt-get install chromium`)")
    return path


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser_path) as launched:
        yield launched


@pytest.fixture(scope="module")
def served(new_settings: Callable[[], Settings]) -> Iterator[Settings]:
    """A dashboard that listens, with nothing published yet."""
    settings = new_settings()
    program = DASHBOARD.program(settings)
    log = log_file(settings, DASHBOARD.name)
    for folder in (log.parent, program.folder):
        assert folder is not None
        folder.mkdir(parents=True)
    with (
        log.open("w") as output,
        subprocess.Popen(
            program.command,
            env={**os.environ, **program.environment},
            cwd=program.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _until_ready(settings)
            yield settings
        finally:
            process.terminate()
            process.wait(program.stop_limit)


@retry(retry=retry_if_result(bool), stop=stop_after_delay(90), wait=wait_fixed(0.1))
def _until_ready(settings: Settings) -> str | None:
    return DASHBOARD.why_not_ready(settings)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    # Where it is yesterday for most of a UTC day.
    with browser.new_context(timezone_id=FAR_WEST) as context:
        context.set_default_timeout(LIMIT_MS)
        yield context.new_page()


def _open(page: Page, settings: Settings) -> None:
    page.goto(f"http://127.0.0.1:{settings.dashboard_port}/")
    _wait_for_the_end(page)


def _wait_for_the_end(page: Page) -> None:
    """Until the script has run to its end: then it shows no running man, and all that it leaves is on the page."""
    expect(page.get_by_role("heading", name="Payments")).to_be_visible(timeout=LIMIT_MS)
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached(timeout=LIMIT_MS)


def _charts(page: Page) -> Locator:
    return page.locator("[role=graphics-document]")


@pytest.fixture
def opened(served: Settings, page: Page) -> Page:
    publish_marts(served)
    _open(page, served)
    expect(_charts(page)).to_have_count(CHARTS, timeout=LIMIT_MS)
    return page


def _table(page: Page, title: str) -> list[dict[str, str]]:
    """The figures under a chart, as a person sees who opens them."""
    page.get_by_text(f"Figures: {title}").click()
    table = page.locator("details", has_text=f"Figures: {title}").locator("table")
    expect(table).to_be_visible()
    head, *rows = table.locator("tr").evaluate_all("rows => rows.map(r => [...r.cells].map(c => c.innerText.trim()))")
    return [dict(zip(head, row, strict=True)) for row in rows]


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


def _marks(page: Page, title: str, kind: str) -> set[str]:
    """What the marks of a chart are called: each drawn bar, cell, point or line says its figure."""
    chart = page.locator(f'[role=graphics-document][aria-label^="{title}"]')
    drawn = chart.locator(f"[aria-roledescription='{kind}']")
    expect(drawn.first).to_be_attached(timeout=LIMIT_MS)
    return {str(label) for label in drawn.evaluate_all("marks => marks.map(mark => mark.getAttribute('aria-label'))")}


def test_the_daily_revenue_is_that_of_the_mart(opened: Page, served: Settings) -> None:
    title = "Daily revenue"
    expected = _rows(
        served,
        "select cast(day as varchar), sum(gross_reporting), sum(net_reporting) from marts.daily_revenue "
        "group by day order by day desc",
    )
    shown = [(row["day"], _minor(row["gross"]), _minor(row["net"])) for row in _table(opened, title)]
    assert shown == expected
    day, gross, net = expected[0]
    drawn = _marks(opened, title, "point")
    assert {f"{day}, gross: {gross / 100:,.2f} EUR", f"{day}, net: {net / 100:,.2f} EUR"} <= drawn
    assert len(drawn) == 2 * len(expected)
    assert any("from Thursday, 15 January 2026, 12:00:00 AM UTC" in axis for axis in _marks(opened, title, "axis"))
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
        for row in _table(opened, title)
    ]
    assert sorted(shown) == sorted(expected)
    assert _marks(opened, title, "rect mark") == {
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
        for row in _table(opened, title)
    ]
    assert sorted(shown) == sorted(expected)
    drawn = _marks(opened, title, "point")
    assert drawn >= {
        f"{month}, {brand}: {rate}, {disputes} of {charges:,}"
        for month, brand, disputes, charges, rate, _ in expected
        if brand in {"visa", "mastercard"}
    }
    ((disputes, charges),) = _rows(
        served,
        "select sum(disputes), sum(successful_charges) from marts.dispute_rates "
        "where month = '2026-11-01' and card_brand not in ('visa', 'mastercard')",
    )
    assert f"2026-11, other brands: {disputes / charges:.2%}, {disputes} of {charges:,}" in drawn
    assert _marks(opened, title, "rule mark") == {"limit 1.5% (Visa VAMP, Mastercard ECM)"}


def test_the_movements_of_the_mrr_are_those_of_the_mart(opened: Page, served: Settings) -> None:
    title = "Movement of the monthly recurring revenue"
    expected = _rows(
        served,
        "select strftime(month, '%Y-%m'), movement, sum(change_reporting) from marts.mrr group by month, movement",
    )
    table = _table(opened, title)
    movements = {movement for _, movement, _ in expected}
    shown = [(row["month"], movement, _minor(row[movement])) for row in table for movement in movements]
    assert sorted(shown) == sorted(expected)
    assert _rows(
        served, "select strftime(month, '%Y-%m'), sum(mrr_reporting) from marts.mrr group by month order by month desc"
    ) == [(row["month"], _minor(row["MRR"])) for row in table]
    assert _marks(opened, title, "bar") == {
        f"{month}, {movement}: {change / 100:,.2f} EUR" for month, movement, change in expected
    }
    assert any("values: June 2026, July 2026" in axis for axis in _marks(opened, title, "axis"))


def test_the_cohorts_are_those_of_the_mart(opened: Page, served: Settings) -> None:
    title = "Customers who pay again, by cohort"
    expected = _rows(
        served,
        "select strftime(cohort_month, '%Y-%m'), '+' || months_since, printf('%.2f%%', 100 * retention), "
        "retained, customers from marts.customer_cohorts",
    )
    shown = {
        (row["cohort"], age, rate)
        for row in _table(opened, title)
        for age, rate in row.items()
        if age.startswith("+") and rate != "n/a"
    }
    assert shown == {(cohort, age, rate) for cohort, age, rate, _, _ in expected}
    assert _marks(opened, title, "rect mark") == {
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
    assert len(_table(opened, "Daily revenue")) == days
    assert {row["month"] for row in _table(opened, "Dispute rate against the networks' limits")} == {
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


def test_without_a_warehouse_the_page_says_how_to_build_one(page: Page, served: Settings) -> None:
    published_path(served).unlink(missing_ok=True)
    _open(page, served)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("there is no warehouse yet at")
    expect(alert).to_contain_text("stripe-platform run oltp_to_warehouse")
    expect(_charts(page)).to_have_count(0)


def test_a_damaged_warehouse_is_told_in_a_sentence(page: Page, served: Settings) -> None:
    publish_marts(served)
    published_path(served).write_bytes(CANARY.encode() * 1000)
    _open(page, served)
    expect(page.get_by_role("alert")).to_contain_text("warehouse.duckdb cannot be opened")
    _assert_nothing_told(page, served)


def test_empty_marts_say_how_to_fill_them(page: Page, served: Settings) -> None:
    publish_marts(served, instead={mart: f"create table marts.{mart} ({columns})" for mart, columns in MARTS.items()})
    _open(page, served)
    notes = page.get_by_role("status").filter(has_text="is empty")
    expect(notes).to_have_count(CHARTS)
    for mart in ("daily_revenue", "authorization_rates", "dispute_rates", "mrr", "customer_cohorts"):
        expect(notes.filter(has_text=f"{mart} is empty")).to_contain_text("stripe-platform run oltp_to_warehouse")


def test_a_query_that_fails_shows_its_mart_and_a_remedy_but_no_value_and_leaves_the_other_charts(
    page: Page, served: Settings
) -> None:
    columns = "date '2026-11-01' as month, 'item' as subscription_item_id, 'new' as movement, 1 as mrr_reporting"
    view = f"create view marts.mrr as select {columns}, cast('{CANARY}' as bigint) as change_reporting"
    publish_marts(served, instead={"mrr": view})
    _open(page, served)
    expect(page.get_by_role("alert")).to_contain_text("mrr cannot be read (ConversionException)")
    expect(page.get_by_role("alert")).to_contain_text("stripe-platform run oltp_to_warehouse")
    expect(_charts(page)).to_have_count(CHARTS - 1, timeout=LIMIT_MS)
    _assert_nothing_told(page, served)


def test_a_mart_of_another_version_is_told_and_leaves_the_other_charts(page: Page, served: Settings) -> None:
    publish_marts(served, instead={"dispute_rates": "create table marts.dispute_rates (month date)"})
    _open(page, served)
    expect(page.get_by_role("alert")).to_contain_text("dispute_rates cannot be read (BinderException)")
    expect(_charts(page)).to_have_count(CHARTS - 1, timeout=LIMIT_MS)


def _assert_nothing_told(page: Page, settings: Settings) -> None:
    for told in (page.content(), log_file(settings, DASHBOARD.name).read_text()):
        assert CANARY not in told
        assert "Traceback" not in told


def test_the_page_asks_nobody_but_its_own_server(page: Page, served: Settings) -> None:
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.on("websocket", lambda websocket: asked.add(websocket.url.split("/")[2]))
    publish_marts(served)
    _open(page, served)
    expect(_charts(page)).to_have_count(CHARTS, timeout=LIMIT_MS)
    assert asked == {f"127.0.0.1:{served.dashboard_port}"}


@pytest.mark.parametrize(("host", "status"), [("localhost", "101"), ("rebound.example", "403")])
def test_a_name_that_somebody_else_leads_here_gets_no_figures(served: Settings, host: str, status: str) -> None:
    port = served.dashboard_port
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: streamlit\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode())
        assert connection.recv(64).decode().split()[1] == status


def test_it_listens_on_this_machine_alone(served: Settings) -> None:
    holder = holder_of(served.dashboard_port)
    assert holder
    assert {c.laddr.ip for c in holder.net_connections("tcp") if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
