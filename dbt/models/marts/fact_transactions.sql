-- A refund or dispute leads to its charge; other movements (payouts, fees) belong to none.
with charge_of_source as (
    select
        'refund' as source_type,
        refund_id as source_id,
        charge_id
    from {{ ref('stg_refunds') }}
    union all
    select
        'dispute' as source_type,
        dispute_id as source_id,
        charge_id
    from {{ ref('stg_disputes') }}
)

select
    transactions.transaction_id,
    transactions.merchant_id,
    case
        when transactions.source_type = 'charge' then transactions.source_id
        else charge_of_source.charge_id
    end as charge_id,
    transactions.amount,
    transactions.fee,
    transactions.net,
    transactions.currency,
    transactions.exchange_rate,
    transactions.type,
    transactions.reporting_category,
    transactions.status,
    transactions.source_type,
    transactions.source_id,
    transactions.payout_id,
    transactions.created,
    cast(transactions.created at time zone 'UTC' as date) as day,
    transactions.available_on,
    transactions.committed_at
from {{ ref('stg_transactions') }} as transactions
left join charge_of_source
    on
        transactions.source_type = charge_of_source.source_type
        and transactions.source_id = charge_of_source.source_id
