{{ rebuilt_by_key('refund_id') }}
-- A refund that failed has two ledger rows that come to nothing; one that was canceled in time has none.
with touched as (
    {% call touched(ref('stg_refunds'), 'refund_id') %}
    {{ changed('refunds', 'id as refund_id') }}
    union all
    select refund_id from {{ ref('stg_refunds') }}
    where charge_id in ({{ changed('charges', 'id') }})
    union all
    {{ ever_named('balance_transactions', 'source_id', only="source_type = 'refund'") }}
    {% endcall %}
),

ledger as (
    select
        transactions.source_id as refund_id,
        sum(transactions.fee) as fee,
        sum(transactions.net) as net,
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
    cast(
        case when refunds.status in ('failed', 'canceled') then 0 else refunds.amount end as bigint
    ) as amount_refunded,
    refunds.currency,
    cast(coalesce(ledger.fee, 0) as bigint) as fee,
    cast(coalesce(ledger.net, 0) as bigint) as net,
    ledger.settlement_currency,
    refunds.status,
    refunds.reason,
    refunds.failure_reason,
    refunds.livemode,
    refunds.created,
    {{ utc_day('refunds.created') }} as day,
    refunds.committed_at
from touched
left join {{ ref('stg_refunds') }} as refunds on touched.refund_id = refunds.refund_id
left join {{ ref('stg_charges') }} as charges on refunds.charge_id = charges.charge_id
left join ledger on refunds.refund_id = ledger.refund_id
