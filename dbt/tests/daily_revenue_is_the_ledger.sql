{{ config(meta={'dagster': {'ref': {'name': 'daily_revenue'}}}) }}
-- Net revenue of each day and currency is what the ledger's revenue rows of that day add to the balances, in the
-- reporting currency too.
with ledger as (
    select
        day,
        currency,
        sum(net) as net,
        sum(net_reporting) as net_reporting
    from {{ ref('fact_transactions') }}
    where reporting_category in {{ revenue_categories() }}
    group by day, currency
),

mart as (
    select
        day,
        currency,
        sum(net) as net,
        sum(net_reporting) as net_reporting
    from {{ ref('daily_revenue') }}
    group by day, currency
)

{{ rows_that_differ('ledger', 'mart') }}
