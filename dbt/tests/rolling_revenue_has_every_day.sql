{{ config(meta={'dagster': {'ref': {'name': 'rolling_revenue'}}}) }}
-- Of each currency with revenue, from the first day with any to the last day that there is, none missing.
with revenue as (
    select
        currency,
        min(day) as first_day
    from {{ ref('daily_revenue') }}
    group by currency
),

calendar as (
    select
        revenue.currency,
        days.day
    from revenue
    inner join {{ ref('dim_date') }} as days on revenue.first_day <= days.day
),

mart as (
    select
        currency,
        day
    from {{ ref('rolling_revenue') }}
)

{{ rows_that_differ('calendar', 'mart') }}
