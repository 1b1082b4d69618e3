{{ config(meta={'dagster': {'ref': {'name': 'daily_revenue'}}}) }}
-- Net revenue of each day and currency is what the ledger's revenue rows of that day add to the balances, in the
-- reporting currency too, and every one of them but a fee by itself is counted in its kind.
with ledger as (
    select
        day,
        currency,
        sum(net) as net,
        sum(net_reporting) as net_reporting,
        {{ sum_in(1, ['charge']) }} as charge_count,
        {{ sum_in(1, ['refund']) }} as refund_count,
        {{ sum_in(1, ['refund_failure']) }} as refund_failure_count,
        {{ sum_in(1, ['dispute']) }} as dispute_count,
        {{ sum_in(1, ['dispute_reversal']) }} as dispute_reversal_count
    from {{ ref('fact_transactions') }}
    where reporting_category in {{ revenue_categories() }}
    group by day, currency
),

mart as (
    select
        day,
        currency,
        sum(net) as net,
        sum(net_reporting) as net_reporting,
        sum(charge_count) as charge_count,
        sum(refund_count) as refund_count,
        sum(refund_failure_count) as refund_failure_count,
        sum(dispute_count) as dispute_count,
        sum(dispute_reversal_count) as dispute_reversal_count
    from {{ ref('daily_revenue') }}
    group by day, currency
)

{{ rows_that_differ('ledger', 'mart') }}
