"""The charts, in Vega-Lite by Altair; each draws what the tables of `figures` tell."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from itertools import cycle
from typing import Any, Literal

import altair as alt
from altair.typing import ChartType

from stripe_platform.dashboard.figures import CURRENCY, NO_CARD, money, share
from stripe_platform.dashboard.queries import Authorization, Cohort, Disputes, MrrMovement, Revenue

# Colours that people who see red and green alike can tell apart (Okabe and Ito).
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY, BLACK = "#767676", "#000000"
MOVEMENT_COLOURS = {
    "new": BLUE,
    "expansion": SKY,
    "reactivation": GREEN,
    "contraction": ORANGE,
    "churn": VERMILION,
    # What the reporting currency alone has changed.
    "unchanged": GREY,
}
OTHER_BRANDS = "other brands"
# Of brands whose network has a limit.
BRAND_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
COUNTRIES_SHOWN = 12
OTHER_COUNTRIES = "others"
# A share of fewer charges says little: it is shown, but not by colour.
FEW = 30
HEIGHT = 320
# Of each mark, for the pointer and for screen readers.
LABEL = {"tooltip": "label:N", "description": "label:N"}


def revenue_chart(rows: Sequence[Revenue]) -> ChartType:
    """Gross and net of each day: what is seen of a bar above the line, refunds, disputes and fees have taken."""
    gross, net = (
        _chart(
            [
                _dated(row.day, name, amount / 10**row.exponent, f"{row.day}, {name}: {money(amount, row.exponent)}")
                for row, amount in zip(rows, amounts, strict=True)
            ]
        )
        for name, amounts in (("gross", [row.gross for row in rows]), ("net", [row.net for row in rows]))
    )
    x = _time("Day (UTC)", "utcyearmonthdate")
    y = alt.Y("value:Q", title=f"{CURRENCY} a day").axis(format="~s")
    colour = _colours({"gross": SKY, "net": VERMILION})
    return alt.layer(
        gross.mark_bar(binSpacing=0).encode(x=x, y=y, color=colour, **LABEL),
        net.mark_line(point={"size": 8}, strokeWidth=1.5).encode(x=x.bandPosition(0.5), y=y, color=colour, **LABEL),
    ).properties(height=HEIGHT)


def authorization_chart(rows: Sequence[Authorization]) -> ChartType:
    """The authorization rate as a heat map: brands by countries, those with most charges first."""
    countries = _by_charges(rows, lambda row: row.card_country)
    shown = countries[:COUNTRIES_SHOWN]
    sums: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        country = row.card_country or NO_CARD
        cell = row.card_brand or NO_CARD, country if country in shown else OTHER_COUNTRIES
        sums[cell].update(authorized=row.authorized, sent=row.sent_to_network)
    values = [
        _cell(brand, country, of["authorized"], of["sent"], grey=of["sent"] < FEW)
        for (brand, country), of in sums.items()
        if of["sent"]
    ]
    return _heat_map(
        values,
        x=alt.X("x:N", title="Card brand", sort=_by_charges(rows, lambda row: row.card_brand)).axis(labelAngle=0),
        y=alt.Y("y:N", title="Country of the bank", sort=[*shown, OTHER_COUNTRIES]),
        legend="Authorized",
    )


def disputes_chart(rows: Sequence[Disputes]) -> ChartType:
    """Disputes as a share of charges, as each network counts them, beside the networks' limits."""
    sums: defaultdict[tuple[date, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        series = f"{row.card_brand} ({row.program})" if row.program else OTHER_BRANDS
        sums[row.month, series].update(disputes=row.counted, charges=row.counted_charges)
    values = [
        _dated(
            month,
            series,
            of["disputes"] / of["charges"],
            f"{month:%Y-%m}, {series}: {share(of['disputes'], of['charges'])}, {of['disputes']:,} of {of['charges']:,}",
        )
        for (month, series), of in sums.items()
        if of["charges"]
    ]
    of_networks = sorted({series for _, series in sums} - {OTHER_BRANDS})
    limits = _limits(rows)
    colours = dict(zip(of_networks, cycle(BRAND_COLOURS), strict=False)) | {OTHER_BRANDS: GREY}
    colour = _colours(colours | dict.fromkeys(limits, BLACK), columns=2)
    y = alt.Y("value:Q", title="Disputes / charges").axis(format=".1%")
    x = _time("Month", "utcyearmonth").axis(format="%b %Y", tickCount="month")
    lines = _chart(values).mark_line(point=True).encode(x=x, y=y)
    rules = _chart([{"series": name, "value": limit, "label": name} for name, limit in limits.items()])
    return alt.layer(
        lines.encode(color=colour, **LABEL),
        rules.mark_rule(strokeDash=[6, 4], strokeWidth=2).encode(y=y, color=colour, **LABEL),
    ).properties(height=HEIGHT)


def mrr_chart(rows: Sequence[MrrMovement]) -> ChartType:
    """What each movement added to the MRR of a month or took from it, and what is left of both."""
    exponent = rows[0].exponent
    totals: Counter[date] = Counter()
    for row in rows:
        totals[row.month] += row.change
    moved = [(row.month, row.movement, row.change) for row in rows if row.change]
    values, of_all = (
        [
            _dated(month, name, change / 10**exponent, f"{month:%Y-%m}, {name}: {money(change, exponent)}")
            for month, name, change in changes
        ]
        for changes in (moved, [(month, "all movements", change) for month, change in totals.items()])
    )
    x = alt.X("time:O", title="Month", timeUnit="utcyearmonth").axis(format="%b %Y", labelAngle=0, labelOverlap=True)
    y = alt.Y("value:Q", title=f"Change of the MRR, {CURRENCY}").axis(format="~s")
    movements = {row.movement for row in rows}
    used = {name: colour for name, colour in MOVEMENT_COLOURS.items() if name in movements}
    diamonds = _chart(of_all).mark_point(shape="diamond", size=80, filled=True, color=BLACK, stroke="white")
    return alt.layer(
        _chart(values).mark_bar().encode(x=x, y=y, color=_colours(used), **LABEL),
        diamonds.encode(x=x, y=y, **LABEL),
    ).properties(height=HEIGHT)


def cohorts_chart(rows: Sequence[Cohort]) -> ChartType:
    """The share of each cohort that pays again, as a heat map by months since the first payment."""
    values = [
        # Of the first month all are there.
        _cell(
            f"+{row.months_since}",
            f"{row.cohort_month:%Y-%m}",
            row.retained,
            row.customers,
            grey=row.months_since == 0,
        )
        for row in rows
    ]
    ages = sorted({row.months_since for row in rows})
    return _heat_map(
        values,
        x=alt.X("x:O", title="Months since the first payment", sort=[f"+{age}" for age in ages]).axis(labelAngle=0),
        y=alt.Y("y:O", title="First payment"),
        legend="Paid again",
    )


def _chart(values: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=values)).properties(height=HEIGHT)


def _dated(day: date, series: str, value: float, label: str) -> dict[str, Any]:
    return {"time": str(day), "series": series, "value": value, "label": label}


def _cell(x: str, y: str, part: int, whole: int, *, grey: bool) -> dict[str, Any]:
    text, label = f"{part / whole:.0%}", f"{x}, {y}: {share(part, whole)}, {part:,} of {whole:,}"
    return {"x": x, "y": y, "share": part / whole, "grey": grey, "text": text, "label": label}


def _time(title: str, unit: Literal["utcyearmonthdate", "utcyearmonth"]) -> alt.X:
    # A day is one of UTC wherever the browser is.
    return alt.X("time:T", title=title, timeUnit=unit)


def _colours(colours: dict[str, str], columns: int = 0) -> alt.Color:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("series:N", title=None, scale=scale).legend(orient="top", labelLimit=0, columns=columns)


def _limits(rows: Sequence[Disputes]) -> dict[str, float]:
    """The limits by a name that says whose they are."""
    programs: defaultdict[float, set[str]] = defaultdict(set)
    for row in rows:
        if row.limit:
            programs[row.limit].add(f"{row.card_brand} {row.program}")
    return {f"limit {limit:.1%} ({', '.join(sorted(of))})": limit for limit, of in programs.items()}


def _heat_map(values: list[dict[str, Any]], *, x: alt.X, y: alt.Y, legend: str) -> ChartType:
    """Cells with their share written in them; the grey ones have no part in the range of colours."""
    telling = [value["share"] for value in values if not value["grey"]] or [0.0, 1.0]
    lowest, highest = min(telling), max(telling)
    colour = alt.Color("share:Q", title=legend).scale(scheme="blues", domain=[lowest, highest], clamp=True)
    is_dark = (alt.datum.share > (lowest + highest) / 2) & ~alt.datum.grey
    cells = alt.Chart(alt.InlineData(values=values)).encode(x=x, y=y, **LABEL)
    return alt.layer(
        cells.mark_rect(stroke="white").encode(
            color=alt.condition(~alt.datum.grey, colour.legend(format=".0%"), alt.value("#E8E8E8"))
        ),
        cells.mark_text().encode(text="text:N", color=alt.condition(is_dark, alt.value("white"), alt.value("black"))),
    ).properties(height=alt.Step(26))


def _by_charges(rows: Sequence[Authorization], of: Callable[[Authorization], str | None]) -> list[str]:
    """Brands or countries, those with the most charges first."""
    sent: Counter[str] = Counter()
    for row in rows:
        sent[of(row) or NO_CARD] += row.sent_to_network
    return [name for name, _ in sent.most_common()]
