{{ rebuilt_by_key(['transaction_id']) }}
-- A refund or dispute leads to its charge; other movements (payouts, fees) belong to none.
with touched as (
    {% call touched(ref('stg_transactions'), ['transaction_id']) %}
    {{ changed('balance_transactions', 'id as transaction_id') }}
    union all
    select transaction_id from {{ ref('stg_transactions') }}
    where source_type = 'refund' and source_id in ({{ changed('refunds', 'id') }})
    union all
    select transaction_id from {{ ref('stg_transactions') }}
    where source_type = 'dispute' and source_id in ({{ changed('disputes', 'id') }})
    union all
    {{ of_rates_changed(ref('stg_transactions'), ['transaction_id']) }}
    {% endcall %}
),

transactions as (
    select
        ledger.*,
        {{ utc_day('ledger.created') }} as day
    from {{ ref('stg_transactions') }} as ledger
    inner join touched on ledger.transaction_id = touched.transaction_id
),

rates as (
    {{ rates_by_day('transactions') }}
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
    {{ in_reporting_currency('transactions.amount', 'rates.rate', 'rates.exponent') }} as amount_reporting,
    {{ in_reporting_currency('transactions.fee', 'rates.rate', 'rates.exponent') }} as fee_reporting,
    {{ in_reporting_currency('transactions.amount', 'rates.rate', 'rates.exponent') }}
    - {{ in_reporting_currency('transactions.fee', 'rates.rate', 'rates.exponent') }} as net_reporting,
    transactions.exchange_rate,
    transactions.type,
    transactions.reporting_category,
    transactions.status,
    transactions.source_type,
    transactions.source_id,
    transactions.payout_id,
    transactions.created,
    transactions.day,
    transactions.available_on,
    transactions.committed_at
from touched
left join transactions on touched.transaction_id = transactions.transaction_id
left join rates on transactions.day = rates.day and transactions.currency = rates.currency
left join charge_of_source
    on
        transactions.source_type = charge_of_source.source_type
        and transactions.source_id = charge_of_source.source_id
