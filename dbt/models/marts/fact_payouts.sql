-- A payout that failed has two ledger rows that come to nothing: it left the balance and came back.
with ledger as (
    select
        source_id as payout_id,
        sum(fee) as fee,
        sum(net) as net
    from {{ ref('fact_transactions') }}
    where source_type = 'payout'
    group by source_id
)

select
    payouts.payout_id,
    payouts.merchant_id,
    payouts.amount,
    payouts.currency,
    cast(coalesce(ledger.fee, 0) as bigint) as fee,
    cast(coalesce(ledger.net, 0) as bigint) as net,
    payouts.status,
    payouts.method,
    payouts.type,
    payouts.arrival_date,
    payouts.automatic,
    payouts.failure_code,
    payouts.reconciliation_status,
    payouts.livemode,
    payouts.created,
    {{ utc_day('payouts.created') }} as day,
    payouts.committed_at
from {{ ref('stg_payouts') }} as payouts
left join ledger on payouts.payout_id = ledger.payout_id
