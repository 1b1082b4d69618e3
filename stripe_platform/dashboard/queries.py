"""What the dashboard shows, read from the published marts; amounts are minor units of the reporting currency.

Each query has a connection of its own: the next build may be published between two of them.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import duckdb

from stripe_platform.errors import StripePlatformError
from stripe_platform.money import REPORTING_CURRENCY
from stripe_platform.settings import Settings
from stripe_platform.warehouse.published import published_connection, require_published_file

# Long enough for the moment in which the file is replaced.
OPEN_LIMIT = timedelta(seconds=2)

# The column by which the period is chosen.
TIMES = {
    "daily_revenue": "day",
    "authorization_rates": "day",
    "dispute_rates": "month",
    "mrr": "month",
    "customer_cohorts": "cohort_month",
}

Row = TypeVar("Row")


class MartUnreadable(StripePlatformError):
    """DuckDB refused a query; its own message may quote values of rows, so that only its kind is told."""

    def __init__(self, mart: str, cause: duckdb.Error) -> None:
        super().__init__(
            f"{mart} cannot be read ({type(cause).__name__}): the published warehouse is damaged, or of another "
            "version of the code; publish it anew with `stripe-platform run oltp_to_warehouse`"
        )


@dataclass(frozen=True)
class Revenue:
    """One day over all merchants; `unconverted` rows have no exchange rate and are in no amount."""

    day: date
    gross: int
    net: int
    unconverted: int
    exponent: int


@dataclass(frozen=True)
class Authorization:
    """Charges of one card brand from the banks of one country; None: no card was kept."""

    card_brand: str | None
    card_country: str | None
    attempted: int
    sent_to_network: int
    authorized: int


@dataclass(frozen=True)
class Disputes:
    """One month of one card brand, by plain counts and as the network's program counts.

    `counted` of `counted_charges` is what the program compares with `limit`; both names are None where a brand has no
    program, and `counted` then is the plain count. `over_limit` merchants exceeded it.
    """

    month: date
    card_brand: str | None
    program: str | None
    limit: float | None
    successful_charges: int
    disputes: int
    fraud_warnings: int
    counted: int
    counted_charges: int
    over_limit: int


@dataclass(frozen=True)
class MrrMovement:
    """What one kind of movement changed in a month, and the MRR at its end of the items that moved so."""

    month: date
    movement: str
    items: int
    change: int
    mrr: int
    unconverted: int
    exponent: int


@dataclass(frozen=True)
class Cohort:
    """Customers by the month of their first payment: how many of them paid again so many months later."""

    cohort_month: date
    months_since: int
    customers: int
    retained: int
    retention: float


def cut_made_at(settings: Settings) -> datetime:
    """The time up to which the published marts tell; `NoWarehouse` or `OnlyOnDuckDB` when there are none to read."""
    made_at: datetime
    ((made_at,),) = _fetch(settings, "meta.build", "select made_at from meta.build", {})
    return made_at


def revenue(settings: Settings, months: int | None) -> list[Revenue]:
    """Each day of the last `months` months that have any, of all when None."""
    return _rows(
        settings,
        Revenue,
        "daily_revenue",
        months,
        f"""
        select
            day, coalesce(sum(gross_reporting), 0), coalesce(sum(net_reporting), 0),
            count(*) filter (where gross_reporting is null or net_reporting is null), exponent
        from shown
        join marts.dim_currency on code = '{REPORTING_CURRENCY}'
        group by day, exponent
        order by day
        """,
    )


def authorization(settings: Settings, months: int | None) -> list[Authorization]:
    """Card brands and countries of the last `months` months, those with the most charges first."""
    return _rows(
        settings,
        Authorization,
        "authorization_rates",
        months,
        """
        select card_brand, card_country, sum(attempted), sum(sent_to_network), sum(authorized)
        from shown
        group by card_brand, card_country
        order by sum(sent_to_network) desc, card_brand, card_country
        """,
    )


def disputes(settings: Settings, months: int | None) -> list[Disputes]:
    """The last `months` months by card brand."""
    return _rows(
        settings,
        Disputes,
        "dispute_rates",
        months,
        """
        select
            month, card_brand, program, cast(ratio as double), sum(successful_charges), sum(disputes),
            sum(fraud_warnings), sum(coalesce(watched_events, disputes)),
            sum(coalesce(watched_charges, successful_charges)),
            count(distinct merchant_id) filter (where exceeds_limit)
        from shown
        left join marts.card_network_limits using (card_brand)
        group by month, card_brand, program, ratio
        order by month, card_brand
        """,
    )


def mrr_movements(settings: Settings, months: int | None) -> list[MrrMovement]:
    """The last `months` months by movement."""
    return _rows(
        settings,
        MrrMovement,
        "mrr",
        months,
        f"""
        select
            month, movement, count(*), coalesce(sum(change_reporting), 0), coalesce(sum(mrr_reporting), 0),
            count(*) filter (where change_reporting is null or mrr_reporting is null), exponent
        from shown
        join marts.dim_currency on code = '{REPORTING_CURRENCY}'
        group by month, movement, exponent
        order by month, movement
        """,
    )


def cohorts(settings: Settings, months: int | None) -> list[Cohort]:
    """The last `months` cohorts, month by month."""
    return _rows(
        settings,
        Cohort,
        "customer_cohorts",
        months,
        """
        select cohort_month, months_since, customers, retained, retention
        from shown
        order by cohort_month, months_since
        """,
    )


def _rows(settings: Settings, row: type[Row], mart: str, months: int | None, select: str) -> list[Row]:
    """Rows of `select` from `shown`: the mart's months, counted back from its last one."""
    time = TIMES[mart]
    sql = f"""
        with shown as (
            select *
            from marts.{mart}
            where $months is null or {time} > (select max({time}) from marts.{mart}) - to_months($months)
        )
        {select}
    """
    return [row(*values) for values in _fetch(settings, mart, sql, {"months": months})]


def _fetch(settings: Settings, mart: str, sql: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    require_published_file(settings, "the dashboard")
    with published_connection(settings, limit=OPEN_LIMIT) as connection:
        try:
            return connection.execute(sql, parameters).fetchall()
        except duckdb.Error as error:
            # Not as its cause: a log of it would quote what it quotes.
            raise MartUnreadable(mart, error) from None
