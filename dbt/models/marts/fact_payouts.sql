{{ rebuilt_by_key(['payout_id']) }}
-- A payout that failed has two ledger rows that come to nothing: it left the balance and came back.
with touched as (
    {% call touched(ref('stg_payouts'), ['payout_id']) %}
    {{ changed('payouts', 'id as payout_id') }}
    union all
    {{ ever_named('balance_transactions', 'source_id', only="source_type = 'payout'") }}
    union all
    {{ of_rates_changed(ref('stg_payouts'), ['payout_id']) }}
    union all
    select payout_id from {{ ref('stg_payouts') }}
    where payout_id in ({{ of_rates_changed(ref('fact_transactions'), ['source_id']) }})
    {% endcall %}
),

payouts as (
    select
        given.*,
        {{ utc_day('given.created') }} as day
    from {{ ref('stg_payouts') }} as given
    inner join touched on given.payout_id = touched.payout_id
),

rates as (
    {{ rates_by_day('payouts') }}
),

ledger as (
    select
        transactions.source_id as payout_id,
        sum(transactions.fee) as fee,
        sum(transactions.net) as net,
        {{ sum_of_all('transactions.fee_reporting') }} as fee_reporting,
        {{ sum_of_all('transactions.net_reporting') }} as net_reporting
    from {{ ref('fact_transactions') }} as transactions
    inner join touched on transactions.source_id = touched.payout_id
    where transactions.source_type = 'payout'
    group by transactions.source_id
)

select
    touched.payout_id,
    payouts.merchant_id,
    payouts.amount,
    payouts.currency,
    {{ in_reporting_currency('payouts.amount', 'rates.rate', 'rates.exponent') }} as amount_reporting,
    cast(coalesce(ledger.fee, 0) as bigint) as fee,
    cast(coalesce(ledger.net, 0) as bigint) as net,
    cast(case when ledger.payout_id is null then 0 else ledger.fee_reporting end as bigint) as fee_reporting,
    cast(case when ledger.payout_id is null then 0 else ledger.net_reporting end as bigint) as net_reporting,
    payouts.status,
    payouts.method,
    payouts.type,
    payouts.arrival_date,
    payouts.automatic,
    payouts.failure_code,
    payouts.reconciliation_status,
    payouts.livemode,
    payouts.created,
    payouts.day,
    payouts.committed_at
from touched
left join payouts on touched.payout_id = payouts.payout_id
left join rates on payouts.day = rates.day and payouts.currency = rates.currency
left join ledger on payouts.payout_id = ledger.payout_id
