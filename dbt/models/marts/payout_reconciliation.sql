{{ rebuilt_by_key(['payout_id']) }}
-- A payout's own movements, out of the balance and back into it, are none of those that it pays out. The money of an
-- earlier payout that failed is one: its movement names the earlier payout as source and the later one as payout.
with touched as (
    {% call touched(ref('fact_payouts'), ['payout_id'], day='day') %}
    {{ changed('payouts', 'id as payout_id') }}
    union all
    {{ ever_named('balance_transactions', 'payout_id') }}
    union all
    {{ of_rates_changed(ref('fact_transactions'), ['payout_id']) }}
    {% endcall %}
),

movements as (
    select
        transactions.payout_id,
        transactions.amount,
        transactions.fee,
        transactions.net,
        transactions.amount_reporting,
        transactions.fee_reporting,
        transactions.net_reporting,
        transactions.merchant_id <> payouts.merchant_id or transactions.currency <> payouts.currency as is_foreign
    from {{ ref('fact_transactions') }} as transactions
    inner join touched on transactions.payout_id = touched.payout_id
    inner join {{ ref('fact_payouts') }} as payouts on transactions.payout_id = payouts.payout_id
    where transactions.source_id is distinct from transactions.payout_id
),

paid_out as (
    select
        payout_id,
        count(*) as movements,
        sum(case when is_foreign then 1 else 0 end) as foreign_movements,
        sum(case when is_foreign then 0 else amount end) as gross,
        sum(case when is_foreign then 0 else fee end) as fees,
        sum(case when is_foreign then 0 else net end) as net,
        {{ sum_of_all('case when is_foreign then 0 else amount_reporting end') }} as gross_reporting,
        {{ sum_of_all('case when is_foreign then 0 else fee_reporting end') }} as fees_reporting,
        {{ sum_of_all('case when is_foreign then 0 else net_reporting end') }} as net_reporting
    from movements
    group by payout_id
),

reckoned as (
    select
        touched.payout_id,
        payouts.merchant_id,
        payouts.currency,
        payouts.status,
        payouts.reconciliation_status,
        payouts.amount,
        payouts.arrival_date,
        payouts.day,
        payouts.committed_at,
        cast(coalesce(paid_out.movements, 0) as bigint) as movements,
        cast(coalesce(paid_out.foreign_movements, 0) as bigint) as foreign_movements,
        cast(coalesce(paid_out.gross, 0) as bigint) as gross,
        cast(coalesce(paid_out.fees, 0) as bigint) as fees,
        cast(coalesce(paid_out.net, 0) as bigint) as paid_out_net,
        case when paid_out.payout_id is null then 0 else paid_out.gross_reporting end as gross_reporting,
        case when paid_out.payout_id is null then 0 else paid_out.fees_reporting end as fees_reporting,
        case when paid_out.payout_id is null then 0 else paid_out.net_reporting end as net_reporting
    from touched
    left join {{ ref('fact_payouts') }} as payouts on touched.payout_id = payouts.payout_id
    left join paid_out on touched.payout_id = paid_out.payout_id
)

select
    payout_id,
    merchant_id,
    currency,
    status,
    reconciliation_status,
    amount,
    movements,
    foreign_movements,
    gross,
    fees,
    paid_out_net as net,
    cast(gross_reporting as bigint) as gross_reporting,
    cast(fees_reporting as bigint) as fees_reporting,
    cast(net_reporting as bigint) as net_reporting,
    amount - paid_out_net as difference,
    amount = paid_out_net and foreign_movements = 0 as is_reconciled,
    arrival_date,
    day,
    committed_at
from reckoned
