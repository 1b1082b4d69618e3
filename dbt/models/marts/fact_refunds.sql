{{ rebuilt_by_key(['refund_id']) }}
-- A refund that failed has two ledger rows that come to nothing; one that was canceled in time has none.
with touched as (
    {% call touched(ref('stg_refunds'), ['refund_id']) %}
    {{ changed('refunds', 'id as refund_id') }}
    union all
    select refund_id from {{ ref('stg_refunds') }}
    where charge_id in ({{ changed('charges', 'id') }})
    union all
    {{ ever_named('balance_transactions', 'source_id', only="source_type = 'refund'") }}
    union all
    {{ of_rates_changed(ref('stg_refunds'), ['refund_id']) }}
    union all
    select refund_id from {{ ref('stg_refunds') }}
    where refund_id in ({{ of_rates_changed(ref('fact_transactions'), ['source_id']) }})
    {% endcall %}
),

refunds as (
    select
        given.*,
        case when given.status in ('failed', 'canceled') then 0 else given.amount end as amount_refunded,
        {{ utc_day('given.created') }} as day
    from {{ ref('stg_refunds') }} as given
    inner join touched on given.refund_id = touched.refund_id
),

rates as (
    {{ rates_by_day('refunds') }}
),

ledger as (
    select
        transactions.source_id as refund_id,
        sum(transactions.fee) as fee,
        sum(transactions.net) as net,
        {{ sum_of_all('transactions.fee_reporting') }} as fee_reporting,
        {{ sum_of_all('transactions.net_reporting') }} as net_reporting,
        min(transactions.currency) as settlement_currency
    from {{ ref('fact_transactions') }} as transactions
    inner join touched on transactions.source_id = touched.refund_id
    where transactions.source_type = 'refund'
    group by transactions.source_id
)

select
    touched.refund_id,
    refunds.charge_id,
    charges.merchant_id,
    refunds.amount,
    cast(refunds.amount_refunded as bigint) as amount_refunded,
    refunds.currency,
    {{ in_reporting_currency('refunds.amount_refunded', 'rates.rate', 'rates.exponent') }} as amount_refunded_reporting,
    cast(coalesce(ledger.fee, 0) as bigint) as fee,
    cast(coalesce(ledger.net, 0) as bigint) as net,
    ledger.settlement_currency,
    cast(case when ledger.refund_id is null then 0 else ledger.fee_reporting end as bigint) as fee_reporting,
    cast(case when ledger.refund_id is null then 0 else ledger.net_reporting end as bigint) as net_reporting,
    refunds.status,
    refunds.reason,
    refunds.failure_reason,
    refunds.livemode,
    refunds.created,
    refunds.day,
    refunds.committed_at
from touched
left join refunds on touched.refund_id = refunds.refund_id
left join rates on refunds.day = rates.day and refunds.currency = rates.currency
left join {{ ref('stg_charges') }} as charges on refunds.charge_id = charges.charge_id
left join ledger on refunds.refund_id = ledger.refund_id
