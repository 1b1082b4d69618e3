"""What the charts show, in words and as tables: for screen readers, for tests, and to read to the last digit."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from stripe_platform.dashboard.queries import Authorization, Cohort, Disputes, MrrMovement, Revenue
from stripe_platform.money import REPORTING_CURRENCY, major_units

CURRENCY = REPORTING_CURRENCY.upper()
NO_CARD = "no card"
# A dash alone would be the mark of a list.
NOTHING = "n/a"

Table = list[dict[str, str]]


def money(amount: int, exponent: int) -> str:
    """Minor units of the reporting currency as text."""
    return f"{major_units(amount, exponent)} {CURRENCY}"


def share(part: int, whole: int) -> str:
    """A share as text; of nothing there is none."""
    return f"{part / whole:.2%}" if whole else NOTHING


def revenue_summary(rows: Sequence[Revenue]) -> str:
    """The sums of the days shown."""
    first, last = rows[0], rows[-1]
    gross, net = (money(sum(amounts), last.exponent) for amounts in zip(*((r.gross, r.net) for r in rows), strict=True))
    return f"{first.day} to {last.day}: gross {gross}, net {net}.{_left_out(sum(row.unconverted for row in rows))}"


def revenue_table(rows: Sequence[Revenue]) -> Table:
    """The days, the last one first."""
    return [
        {"day": str(row.day), "gross": money(row.gross, row.exponent), "net": money(row.net, row.exponent)}
        for row in reversed(rows)
    ]


def authorization_summary(rows: Sequence[Authorization]) -> str:
    """The rate over all brands and countries."""
    sent, authorized = sum(row.sent_to_network for row in rows), sum(row.authorized for row in rows)
    return f"Of {sent:,} charges sent to the card networks, {authorized:,} were authorized ({share(authorized, sent)})."


def authorization_table(rows: Sequence[Authorization]) -> Table:
    """Brands and countries, those with the most charges first."""
    return [
        {
            "card brand": row.card_brand or NO_CARD,
            "card country": row.card_country or NO_CARD,
            "attempted": f"{row.attempted:,}",
            "sent to the network": f"{row.sent_to_network:,}",
            "authorized": f"{row.authorized:,}",
            "authorization rate": share(row.authorized, row.sent_to_network),
        }
        for row in rows
    ]


def disputes_summary(rows: Sequence[Disputes]) -> str:
    """The last month over all brands."""
    last = [row for row in rows if row.month == rows[-1].month]
    disputes, charges = sum(row.disputes for row in last), sum(row.successful_charges for row in last)
    over = ", ".join(f"{row.card_brand or NO_CARD} {row.over_limit}" for row in last if row.over_limit) or "none"
    return (
        f"{rows[-1].month:%Y-%m}: {disputes:,} disputes to {charges:,} successful charges "
        f"({share(disputes, charges)}); merchants over the limit: {over}."
    )


def disputes_table(rows: Sequence[Disputes]) -> Table:
    """Months and brands, the last month first."""
    return [
        {
            "month": f"{row.month:%Y-%m}",
            "card brand": row.card_brand or NO_CARD,
            "successful charges": f"{row.successful_charges:,}",
            "disputes": f"{row.disputes:,}",
            "dispute rate": share(row.disputes, row.successful_charges),
            "fraud warnings": f"{row.fraud_warnings:,}",
            "as the network counts": share(row.counted, row.counted_charges) if row.program else NOTHING,
            "limit": f"{row.limit:.2%} ({row.program})" if row.limit else NOTHING,
            "merchants over the limit": str(row.over_limit),
        }
        for row in sorted(rows, key=lambda row: row.month, reverse=True)
    ]


def mrr_summary(rows: Sequence[MrrMovement]) -> str:
    """The MRR at the end of the last month, and what changed in it."""
    last = [row for row in rows if row.month == rows[-1].month]
    exponent = last[0].exponent
    mrr, change = sum(row.mrr for row in last), sum(row.change for row in last)
    parts = ", ".join(f"{row.movement} {money(row.change, exponent)}" for row in last if row.change)
    return (
        f"{last[0].month:%Y-%m}: MRR {money(mrr, exponent)}, changed by {money(change, exponent)} in the month"
        f"{f' ({parts})' if parts else ''}.{_left_out(sum(row.unconverted for row in rows))}"
    )


def mrr_table(rows: Sequence[MrrMovement]) -> Table:
    """A row a month with what each movement changed, the last one first."""
    movements = sorted({row.movement for row in rows})
    table = []
    for month, of_month in groupby(rows, key=lambda row: row.month):
        moved = list(of_month)
        changes = Counter({row.movement: row.change for row in moved})
        table.append(
            {"month": f"{month:%Y-%m}", "MRR": money(sum(row.mrr for row in moved), moved[0].exponent)}
            | {movement: money(changes[movement], moved[0].exponent) for movement in movements}
        )
    return table[::-1]


def cohorts_summary(rows: Sequence[Cohort]) -> str:
    """How many came back after one month."""
    later = [row for row in rows if row.months_since == 1]
    customers = sum(row.customers for row in later)
    if not customers:
        return "No cohort is a month old yet."
    retained = sum(row.retained for row in later)
    return (
        f"Of {customers:,} customers in {len(later)} cohorts, {retained:,} paid again in the month after their first "
        f"payment ({share(retained, customers)})."
    )


def cohorts_table(rows: Sequence[Cohort]) -> Table:
    """A row a cohort, a column a month."""
    ages = sorted({row.months_since for row in rows})
    table = []
    for month, of_cohort in groupby(rows, key=lambda row: row.cohort_month):
        cohort = {row.months_since: row for row in of_cohort}
        size = next(iter(cohort.values())).customers
        table.append(
            {"cohort": f"{month:%Y-%m}", "customers": f"{size:,}"}
            | {f"+{age}": f"{cohort[age].retention:.2%}" if age in cohort else NOTHING for age in ages}
        )
    return table


def _left_out(rows: int) -> str:
    return f" Without an exchange rate, and so left out: {rows:,} rows." if rows else ""
