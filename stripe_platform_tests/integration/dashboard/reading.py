"""What a person reads off the page."""

from playwright.sync_api import Locator, Page, expect

from stripe_platform.settings import Settings

LIMIT_MS = 60_000
CHARTS = 5


def open_page(page: Page, settings: Settings) -> None:
    """Until the script has run to its end: then it shows no running man, and all that it leaves is on the page."""
    page.goto(f"http://127.0.0.1:{settings.dashboard_port}/")
    expect(page.get_by_role("heading", name="Payments")).to_be_visible(timeout=LIMIT_MS)
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_attached(timeout=LIMIT_MS)


def charts_of(page: Page) -> Locator:
    """The charts that are drawn."""
    return page.locator("[role=graphics-document]")


def table_of(page: Page, title: str) -> list[dict[str, str]]:
    """The figures under a chart, which are opened for it."""
    page.get_by_text(f"Figures: {title}").click()
    table = page.locator("details", has_text=f"Figures: {title}").locator("table")
    expect(table).to_be_visible()
    head, *rows = table.locator("tr").evaluate_all("rows => rows.map(r => [...r.cells].map(c => c.innerText.trim()))")
    return [dict(zip(head, row, strict=True)) for row in rows]


def marks_of(page: Page, title: str, kind: str) -> set[str]:
    """What the marks of a chart are called: each drawn bar, cell, point or line says its figure."""
    drawn = page.locator(f"[role=graphics-document][aria-label^=\"{title}\"] [aria-roledescription='{kind}']")
    expect(drawn.first).to_be_attached(timeout=LIMIT_MS)
    return {str(label) for label in drawn.evaluate_all("marks => marks.map(mark => mark.getAttribute('aria-label'))")}
