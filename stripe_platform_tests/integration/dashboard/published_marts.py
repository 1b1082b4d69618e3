"""A published warehouse with the marts that the dashboard reads, small, and the same for the same `factor`."""

import os
from collections.abc import Mapping

import duckdb

from stripe_platform.settings import Settings
from stripe_platform.warehouse.published import published_path

# In the order of the columns that the dashboard reads; the marts have more.
MARTS = {
    "dim_currency": "code varchar, exponent smallint",
    "daily_revenue": "day date, merchant_id varchar, currency varchar, gross_reporting bigint, net_reporting bigint",
    "authorization_rates": "day date, card_brand varchar, card_country varchar, merchant_id varchar, "
    "attempted bigint, sent_to_network bigint, authorized bigint",
    "card_network_limits": "card_brand varchar, program varchar, ratio decimal(5, 4)",
    "dispute_rates": "month date, merchant_id varchar, card_brand varchar, successful_charges bigint, "
    "disputes bigint, fraud_warnings bigint, watched_events bigint, watched_charges bigint, exceeds_limit boolean",
    "mrr": "month date, subscription_item_id varchar, movement varchar, mrr_reporting bigint, change_reporting bigint",
    "customer_cohorts": "cohort_month date, months_since integer, customers bigint, retained bigint, retention double",
}

ROWS = {
    "dim_currency": "values ('eur', 2), ('jpy', 0)",
    # The last currency has no exchange rate.
    "daily_revenue": """
        select
            date '2026-01-15' + cast(day as integer), 'shop-' || shop, currency,
            case when currency <> 'xau' then 100003 * $factor + 7919 * ((day * 31 + shop * 17) % 23) end,
            case when currency <> 'xau' then 90001 * $factor + 6007 * ((day * 29 + shop * 13) % 19) end
        from range(300) as days (day), range(3) as shops (shop), (values ('eur'), ('jpy'), ('xau')) as _ (currency)
        where currency <> 'xau' or day = 299
    """,
    "authorization_rates": """
        select
            date '2026-11-01', brand, country, 'shop-1', 100 * $factor + size, 90 * $factor + size,
            80 * $factor + size - length(country || brand)
        from (values ('visa'), ('mastercard'), ('amex')) as brands (brand),
            (values ('FR', 60), ('DE', 50), ('US', 40), ('GB', 30), ('JP', 20), ('BR', 10)) as countries (country, size)
        union all
        values
            (date '2026-11-02', null, null, 'shop-1', 7, 5, 4),
            (date '2026-11-02', 'jcb', 'JP', 'shop-1', 3, 0, 0)
    """,
    "card_network_limits": "values ('visa', 'VAMP', 0.015), ('mastercard', 'ECM', 0.015)",
    # A network counts by its own rule, and some have no program.
    "dispute_rates": """
        select
            date '2026-01-01' + to_months(cast(month as integer)), 'shop-' || shop, brand, 1000 * $factor,
            share + month % 4, share // 2,
            case brand when 'visa' then share + month % 4 + 7 when 'mastercard' then share + month % 4 end,
            case brand when 'visa' then 900 * $factor when 'mastercard' then least(month, 1) * 800 * $factor end,
            share + month % 4 > 14
        from range(11) as months (month), range(3) as shops (shop),
            (values ('visa', 9), ('mastercard', 12), ('amex', 5), ('jcb', 3)) as brands (brand, share)
    """,
    "mrr": """
        select
            date '2026-06-01' + to_months(cast(month as integer)), 'item-' || item, movement,
            case when movement = 'churn' then 0 else 5000 * $factor end, change * $factor
        from range(6) as months (month), range(4) as items (item), (
            values ('new', 5003), ('expansion', 701), ('contraction', -409), ('churn', -2503), ('unchanged', 11)
        ) as movements (movement, change)
    """,
    "customer_cohorts": """
        select
            date '2026-06-01' + to_months(cast(cohort as integer)), cast(age as integer), 200 * $factor, retained,
            retained / (200 * $factor)
        from range(6) as cohorts (cohort), lateral range(6 - cohort) as ages (age),
            lateral (select case when age = 0 then 200 * $factor else 97 * $factor // (age + 1) + cohort end)
            as _ (retained)
    """,
}


def publish_marts(settings: Settings, *, factor: int = 1, instead: Mapping[str, str] | None = None) -> None:
    """Replace the published file, as a build does; `instead` gives the statement that makes a mart."""
    target = published_path(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.with_suffix(".publishing")
    with duckdb.connect(str(copy)) as warehouse:
        warehouse.execute("set TimeZone = 'UTC'; create schema meta; create schema marts")
        warehouse.execute("create table meta.build as select timestamptz '2026-11-27 06:30:00+00' as made_at")
        for mart, columns in MARTS.items():
            if instead and mart in instead:
                warehouse.execute(instead[mart])
            else:
                warehouse.execute(f"create table marts.{mart} ({columns})")
                warehouse.execute(f"insert into marts.{mart} {ROWS[mart].replace('$factor', str(factor))}")
    os.replace(copy, target)
