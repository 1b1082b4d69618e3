-- A refund that failed has two ledger rows that come to nothing; one that was canceled in time has none.
with ledger as (
    select
        source_id as refund_id,
        sum(fee) as fee,
        sum(net) as net,
        min(currency) as settlement_currency
    from {{ ref('fact_transactions') }}
    where source_type = 'refund'
    group by source_id
)

select
    refunds.refund_id,
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
from {{ ref('stg_refunds') }} as refunds
left join {{ ref('stg_charges') }} as charges on refunds.charge_id = charges.charge_id
left join ledger on refunds.refund_id = ledger.refund_id
