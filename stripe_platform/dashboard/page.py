"""The page that Streamlit runs, from top to bottom whenever it is opened, reloaded or the period is changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st
from altair.typing import ChartType

from stripe_platform.dashboard import charts, figures, queries
from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings, load_settings

PERIODS = {"3 months": 3, "12 months": 12, "all": None}
DEFAULT_PERIOD = "12 months"
FILL = (
    "`stripe-platform simulate --payments 5000` writes a company's past, `stripe-platform import-payments FILE` "
    "payments of your own; `stripe-platform run oltp_to_warehouse` takes them into the marts."
)


@dataclass(frozen=True)
class Section:
    """One chart: what it asks of which mart, and how it is read."""

    title: str
    mart: str
    note: str
    read: Callable[[Settings, int | None], list[Any]]
    summary: Callable[[list[Any]], str]
    chart: Callable[[list[Any]], ChartType]
    table: Callable[[list[Any]], figures.Table]


REVENUE = Section(
    "Daily revenue",
    "daily_revenue",
    "Net is gross less refunds, disputes and fees, on the day each of them was booked.",
    queries.revenue,
    figures.revenue_summary,
    charts.revenue_chart,
    figures.revenue_table,
)
AUTHORIZATION = Section(
    "Authorization rate by card brand and country",
    "authorization_rates",
    f"Charges that the bank approved, of those that reached the card network. Grey: fewer than {charts.FEW} charges.",
    queries.authorization,
    figures.authorization_summary,
    charts.authorization_chart,
    figures.authorization_table,
)
DISPUTES = Section(
    "Dispute rate against the networks' limits",
    "dispute_rates",
    "Of all merchants together; a network judges each by itself, and from some number of disputes on only. "
    "Visa (VAMP) counts fraud warnings too, Mastercard (ECM) divides by the charges of the month before.",
    queries.disputes,
    figures.disputes_summary,
    charts.disputes_chart,
    figures.disputes_table,
)
MRR = Section(
    "Movement of the monthly recurring revenue",
    "mrr",
    "The diamond is the sum of all movements. Unchanged items move by exchange rates alone.",
    queries.mrr_movements,
    figures.mrr_summary,
    charts.mrr_chart,
    figures.mrr_table,
)
COHORTS = Section(
    "Customers who pay again, by cohort",
    "customer_cohorts",
    "A cohort: the customers whose first payment was in the month. The last month of each is as far as the build goes.",
    queries.cohorts,
    figures.cohorts_summary,
    charts.cohorts_chart,
    figures.cohorts_table,
)

# Beside each other where the window is wide enough.
LAYOUT = ((REVENUE,), (AUTHORIZATION, DISPUTES), (MRR, COHORTS))


def show_section(section: Section, settings: Settings, months: int | None) -> None:
    """The chart with its figures; a sentence in its place when the mart is empty or cannot be read."""
    st.subheader(section.title)
    try:
        rows = section.read(settings, months)
    except StripePlatformError as error:
        st.error(str(error))
        return
    if not rows:
        st.info(f"{section.mart} is empty: {FILL}")
        return
    summary = section.summary(rows)
    st.markdown(summary)
    st.altair_chart(section.chart(rows), width="stretch", alt=f"{section.title}. {summary}")
    st.caption(section.note)
    with st.expander(f"Figures: {section.title}"):
        st.table(section.table(rows))


def show_page() -> None:
    """Everything, or the one sentence that says why there is nothing to show."""
    st.set_page_config(page_title="Payments", layout="wide")
    st.title("Payments")
    try:
        settings = load_settings()
        made_at = queries.cut_made_at(settings)
    except StripePlatformError as error:
        st.error(str(error))
        return
    st.caption(f"As of {made_at:%Y-%m-%d %H:%M} UTC. Amounts in {figures.CURRENCY}. Reload the page for a newer build.")
    period = st.segmented_control("Period", list(PERIODS), default=DEFAULT_PERIOD, required=True)
    months = PERIODS[period or DEFAULT_PERIOD]
    for row in LAYOUT:
        for section, column in zip(row, st.columns(len(row)), strict=True):
            with column:
                show_section(section, settings, months)


if __name__ == "__main__":
    show_page()
