{{ rebuilt_by_key('day', present='net is not null') }}
-- What a merchant earned. Payouts, transfers, top-ups, reserves and other adjustments move a balance, but earn nothing.
with touched as (
    {% call touched(ref('fact_transactions'), 'day', only='reporting_category in ' ~ revenue_categories()) %}
    {{ ever_named('balance_transactions', utc_day('created') ~ ' as day') }}
    {% endcall %}
),

daily as (
    select
        transactions.day,
        transactions.merchant_id,
        transactions.currency,
        sum(case when transactions.reporting_category = 'charge' then transactions.amount else 0 end) as gross,
        -sum(
            case
                when transactions.reporting_category in ('refund', 'refund_failure') then transactions.amount else 0
            end
        ) as refunds,
        -sum(
            case
                when transactions.reporting_category in ('dispute', 'dispute_reversal') then transactions.amount else 0
            end
        ) as disputes,
        sum(transactions.fee)
        - sum(case when transactions.reporting_category = 'fee' then transactions.amount else 0 end) as fees
    from {{ ref('fact_transactions') }} as transactions
    inner join touched on transactions.day = touched.day
    where transactions.reporting_category in {{ revenue_categories() }}
    group by transactions.day, transactions.merchant_id, transactions.currency
)

select
    touched.day,
    daily.merchant_id,
    daily.currency,
    cast(daily.gross as bigint) as gross,
    cast(daily.refunds as bigint) as refunds,
    cast(daily.disputes as bigint) as disputes,
    cast(daily.fees as bigint) as fees,
    cast(daily.gross - daily.refunds - daily.disputes - daily.fees as bigint) as net
from touched
left join daily on touched.day = daily.day
