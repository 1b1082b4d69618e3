-- What a merchant earned. Payouts, transfers, top-ups, reserves and other adjustments move a balance, but earn nothing.
with revenue as (
    select
        day,
        merchant_id,
        currency,
        amount,
        fee,
        reporting_category
    from {{ ref('fact_transactions') }}
    where reporting_category in {{ revenue_categories() }}
),

daily as (
    select
        day,
        merchant_id,
        currency,
        coalesce(sum(amount) filter (where reporting_category = 'charge'), 0) as gross,
        -coalesce(sum(amount) filter (where reporting_category in ('refund', 'refund_failure')), 0) as refunds,
        -coalesce(sum(amount) filter (where reporting_category in ('dispute', 'dispute_reversal')), 0) as disputes,
        sum(fee) - coalesce(sum(amount) filter (where reporting_category = 'fee'), 0) as fees
    from revenue
    group by day, merchant_id, currency
)

select
    day,
    merchant_id,
    currency,
    cast(gross as bigint) as gross,
    cast(refunds as bigint) as refunds,
    cast(disputes as bigint) as disputes,
    cast(fees as bigint) as fees,
    cast(gross - refunds - disputes - fees as bigint) as net
from daily
