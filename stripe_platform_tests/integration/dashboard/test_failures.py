"""What the page shows when there is nothing to show, and what it never shows nor asks."""

import socket

import psutil
import pytest
from playwright.sync_api import Page, expect

from stripe_platform.local.dashboard import DASHBOARD
from stripe_platform.local.ports import holder_of
from stripe_platform.local.server import log_file
from stripe_platform.local.stack import server_states, stop
from stripe_platform.settings import Settings
from stripe_platform.warehouse.published import published_path
from stripe_platform_tests.integration.dashboard.published_marts import MARTS, publish_marts
from stripe_platform_tests.integration.dashboard.reading import CHARTS, LIMIT_MS, charts_of, open_page

# Seen by nobody: a row of a mart that cannot be read.
CANARY = "canary-4242424242424242"


def test_without_a_warehouse_the_page_says_how_to_build_one(page: Page, served: Settings) -> None:
    published_path(served).unlink(missing_ok=True)
    open_page(page, served)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("there is no warehouse yet at")
    expect(alert).to_contain_text("stripe-platform run oltp_to_warehouse")
    expect(charts_of(page)).to_have_count(0)


def test_a_damaged_warehouse_is_told_in_a_sentence(page: Page, served: Settings) -> None:
    publish_marts(served)
    published_path(served).write_bytes(CANARY.encode() * 1000)
    open_page(page, served)
    expect(page.get_by_role("alert")).to_contain_text("warehouse.duckdb cannot be opened")
    _assert_nothing_told(page, served)


def test_empty_marts_say_how_to_fill_them(page: Page, served: Settings) -> None:
    publish_marts(served, instead={mart: f"create table marts.{mart} ({columns})" for mart, columns in MARTS.items()})
    open_page(page, served)
    notes = page.get_by_role("status").filter(has_text="is empty")
    expect(notes).to_have_count(CHARTS)
    for mart in ("daily_revenue", "authorization_rates", "dispute_rates", "mrr", "customer_cohorts"):
        expect(notes.filter(has_text=f"{mart} is empty")).to_contain_text("stripe-platform run oltp_to_warehouse")


def test_a_query_that_fails_shows_its_mart_and_a_remedy_but_no_value_and_leaves_the_othercharts_of(
    page: Page, served: Settings
) -> None:
    columns = "date '2026-11-01' as month, 'item' as subscription_item_id, 'new' as movement, 1 as mrr_reporting"
    view = f"create view marts.mrr as select {columns}, cast('{CANARY}' as bigint) as change_reporting"
    publish_marts(served, instead={"mrr": view})
    open_page(page, served)
    expect(page.get_by_role("alert")).to_contain_text("mrr cannot be read (ConversionException)")
    expect(page.get_by_role("alert")).to_contain_text("stripe-platform run oltp_to_warehouse")
    expect(charts_of(page)).to_have_count(CHARTS - 1, timeout=LIMIT_MS)
    _assert_nothing_told(page, served)


def test_a_mart_of_another_version_is_told_and_leaves_the_othercharts_of(page: Page, served: Settings) -> None:
    publish_marts(served, instead={"dispute_rates": "create table marts.dispute_rates (month date)"})
    open_page(page, served)
    expect(page.get_by_role("alert")).to_contain_text("dispute_rates cannot be read (BinderException)")
    expect(charts_of(page)).to_have_count(CHARTS - 1, timeout=LIMIT_MS)


def _assert_nothing_told(page: Page, settings: Settings) -> None:
    for told in (page.content(), log_file(settings, DASHBOARD.name).read_text()):
        assert CANARY not in told
        assert "Traceback" not in told


def test_the_page_asks_nobody_but_its_own_server(page: Page, served: Settings) -> None:
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.on("websocket", lambda websocket: asked.add(websocket.url.split("/")[2]))
    publish_marts(served)
    open_page(page, served)
    expect(charts_of(page)).to_have_count(CHARTS, timeout=LIMIT_MS)
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


def test_it_goes_with_the_stack(served: Settings) -> None:
    stop(served)
    assert holder_of(served.dashboard_port) is None
    assert {state.state for state in server_states(served)} == {"STOPPED"}
