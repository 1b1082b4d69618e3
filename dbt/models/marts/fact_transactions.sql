{{ rebuilt_by_key('transaction_id') }}
-- A refund or dispute leads to its charge; other movements (payouts, fees) belong to none.
with touched as (
    {% call touched(ref('stg_transactions'), 'transaction_id') %}
    {{ changed('balance_transactions', 'id as transaction_id') }}
    union all
    select transaction_id from {{ ref('stg_transactions') }}
    where source_type = 'refund' and source_id in ({{ changed('refunds', 'id') }})
    union all
    select transaction_id from {{ ref('stg_transactions') }}
    where source_type = 'dispute' and source_id in ({{ changed('disputes', 'id') }})
    {% endcall %}
),

charge_of_source as (
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
    touched.transaction_id,
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
    {{ utc_day('transactions.created') }} as day,
    transactions.available_on,
    transactions.committed_at
from touched
left join {{ ref('stg_transactions') }} as transactions on touched.transaction_id = transactions.transaction_id
left join charge_of_source
    on
        transactions.source_type = charge_of_source.source_type
        and transactions.source_id = charge_of_source.source_id
