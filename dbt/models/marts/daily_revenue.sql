{{ rebuilt_by_key(['day', 'merchant_id'], present='net is not null') }}
-- What a merchant earned. Payouts, transfers, top-ups, reserves and other adjustments move a balance, but earn nothing.
with touched as (
    {% call touched(
        ref('fact_transactions'), ['day', 'merchant_id'],
        only='reporting_category in ' ~ revenue_categories(), day='day'
    ) %}
    {{ ever_named('balance_transactions', utc_day('created') ~ ' as day, merchant_id') }}
    union all
    {{ of_rates_changed(ref('fact_transactions'), ['day', 'merchant_id']) }}
    {% endcall %}
),

revenue as (
    select transactions.*
    from {{ ref('fact_transactions') }} as transactions
    where
        transactions.reporting_category in {{ revenue_categories() }}
        and {{ is_touched('transactions', ['day', 'merchant_id']) }}
),

daily as (
    select
        day,
        merchant_id,
        currency,
        count(*) = count(amount_reporting) as is_converted,
        {{ sum_in('amount', ['charge']) }} as gross,
        -{{ sum_in('amount', ['refund', 'refund_failure']) }} as refunds,
        -{{ sum_in('amount', ['dispute', 'dispute_reversal']) }} as disputes,
        sum(fee) - {{ sum_in('amount', ['fee']) }} as fees,
        {{ sum_in('amount_reporting', ['charge']) }} as gross_reporting,
        -{{ sum_in('amount_reporting', ['refund', 'refund_failure']) }} as refunds_reporting,
        -{{ sum_in('amount_reporting', ['dispute', 'dispute_reversal']) }} as disputes_reporting,
        sum(fee_reporting) - {{ sum_in('amount_reporting', ['fee']) }} as fees_reporting,
        {{ sum_in(1, ['charge']) }} as charge_count,
        {{ sum_in(1, ['refund']) }} as refund_count,
        {{ sum_in(1, ['refund_failure']) }} as refund_failure_count,
        {{ sum_in(1, ['dispute']) }} as dispute_count,
        {{ sum_in(1, ['dispute_reversal']) }} as dispute_reversal_count
    from revenue
    group by day, merchant_id, currency
)

select
    touched.day,
    touched.merchant_id,
    daily.currency,
    cast(daily.gross as bigint) as gross,
    cast(daily.refunds as bigint) as refunds,
    cast(daily.disputes as bigint) as disputes,
    cast(daily.fees as bigint) as fees,
    cast(daily.gross - daily.refunds - daily.disputes - daily.fees as bigint) as net,
    cast(case when daily.is_converted then daily.gross_reporting end as bigint) as gross_reporting,
    cast(case when daily.is_converted then daily.refunds_reporting end as bigint) as refunds_reporting,
    cast(case when daily.is_converted then daily.disputes_reporting end as bigint) as disputes_reporting,
    cast(case when daily.is_converted then daily.fees_reporting end as bigint) as fees_reporting,
    cast(
        case
            when daily.is_converted
                then
                    daily.gross_reporting - daily.refunds_reporting - daily.disputes_reporting - daily.fees_reporting
        end as bigint
    ) as net_reporting,
    cast(daily.charge_count as bigint) as charge_count,
    cast(daily.refund_count as bigint) as refund_count,
    cast(daily.refund_failure_count as bigint) as refund_failure_count,
    cast(daily.dispute_count as bigint) as dispute_count,
    cast(daily.dispute_reversal_count as bigint) as dispute_reversal_count
from touched
left join daily on touched.day = daily.day and touched.merchant_id = daily.merchant_id
