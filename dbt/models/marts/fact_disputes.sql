{{ rebuilt_by_key(['dispute_id']) }}
-- An inquiry (its status begins with warning) takes no money: closed, it is neither won nor lost.
with touched as (
    {% call touched(ref('stg_disputes'), ['dispute_id']) %}
    {{ changed('disputes', 'id as dispute_id') }}
    union all
    select dispute_id from {{ ref('stg_disputes') }}
    where charge_id in ({{ changed('charges', 'id') }})
    union all
    {{ changed('dispute_balance_transactions', 'dispute_id') }}
    union all
    select dispute_id from {{ ref('stg_dispute_balance_transactions') }}
    where balance_transaction_id in ({{ changed('balance_transactions', 'id') }})
    union all
    {{ ever_named('events', 'object_id', only="type = 'charge.dispute.closed'") }}
    union all
    -- They are a day longer open with each day.
    select dispute_id from {{ ref('stg_disputes') }}
    where not {{ is_closed('status') }}
    union all
    {{ of_rates_changed(ref('stg_disputes'), ['dispute_id']) }}
    union all
    select dispute_id from {{ ref('stg_dispute_balance_transactions') }}
    where balance_transaction_id in ({{ of_rates_changed(ref('fact_transactions'), ['transaction_id']) }})
    {% endcall %}
),

ledger as (
    select
        links.dispute_id,
        sum(case when links.kind = 'withdrawn' then -transactions.amount else 0 end) as withdrawn,
        sum(case when links.kind = 'reinstated' then transactions.amount else 0 end) as reinstated,
        max(case when links.kind = 'reinstated' then transactions.created end) as reinstated_at,
        sum(transactions.fee) as fee,
        sum(transactions.net) as net,
        {{ sum_of_all("case when links.kind = 'withdrawn' then -transactions.amount_reporting else 0 end") }}
            as withdrawn_reporting,
        {{ sum_of_all("case when links.kind = 'reinstated' then transactions.amount_reporting else 0 end") }}
            as reinstated_reporting,
        {{ sum_of_all('transactions.fee_reporting') }} as fee_reporting,
        {{ sum_of_all('transactions.net_reporting') }} as net_reporting,
        min(transactions.currency) as settlement_currency
    from {{ ref('stg_dispute_balance_transactions') }} as links
    inner join touched on links.dispute_id = touched.dispute_id
    inner join {{ ref('fact_transactions') }} as transactions
        on links.balance_transaction_id = transactions.transaction_id
    group by links.dispute_id
),

-- After an appeal a dispute is closed once more.
closings as (
    select
        events.object_id as dispute_id,
        max(events.created) as closed_at
    from {{ ref('stg_events') }} as events
    inner join touched on events.object_id = touched.dispute_id
    where events.type = 'charge.dispute.closed'
    group by events.object_id
),

judged as (
    select
        opened.*,
        {{ utc_day('opened.created') }} as day,
        {{ is_closed('opened.status') }} as is_closed,
        {{ is_inquiry('opened.status') }} as is_inquiry
    from {{ ref('stg_disputes') }} as opened
    inner join touched on opened.dispute_id = touched.dispute_id
),

rates as (
    {{ rates_by_day('judged') }}
),

disputes as (
    select
        judged.*,
        case when judged.is_closed then coalesce(closings.closed_at, ledger.reinstated_at) end as closed_at,
        ledger.withdrawn,
        ledger.reinstated,
        ledger.fee,
        ledger.net,
        ledger.settlement_currency,
        case when ledger.dispute_id is null then 0 else ledger.withdrawn_reporting end as withdrawn_reporting,
        case when ledger.dispute_id is null then 0 else ledger.reinstated_reporting end as reinstated_reporting,
        case when ledger.dispute_id is null then 0 else ledger.fee_reporting end as fee_reporting,
        case when ledger.dispute_id is null then 0 else ledger.net_reporting end as net_reporting
    from judged
    left join ledger on judged.dispute_id = ledger.dispute_id
    left join closings on judged.dispute_id = closings.dispute_id
)

select
    touched.dispute_id,
    disputes.charge_id,
    charges.merchant_id,
    disputes.amount,
    cast(case when disputes.status = 'won' then disputes.amount else 0 end as bigint) as amount_won,
    cast(case when disputes.status = 'lost' then disputes.amount else 0 end as bigint) as amount_lost,
    disputes.currency,
    {{ in_reporting_currency('disputes.amount', 'rates.rate', 'rates.exponent') }} as amount_reporting,
    cast(coalesce(disputes.withdrawn, 0) as bigint) as withdrawn,
    cast(coalesce(disputes.reinstated, 0) as bigint) as reinstated,
    cast(coalesce(disputes.fee, 0) as bigint) as fee,
    cast(coalesce(disputes.net, 0) as bigint) as net,
    disputes.settlement_currency,
    cast(disputes.withdrawn_reporting as bigint) as withdrawn_reporting,
    cast(disputes.reinstated_reporting as bigint) as reinstated_reporting,
    cast(disputes.fee_reporting as bigint) as fee_reporting,
    cast(disputes.net_reporting as bigint) as net_reporting,
    disputes.status,
    disputes.reason,
    disputes.network_reason_code,
    disputes.is_inquiry,
    disputes.is_closed,
    disputes.evidence_due_by,
    disputes.evidence_submitted_at,
    disputes.livemode,
    disputes.created,
    disputes.day,
    disputes.closed_at,
    cast(
        case
            when disputes.is_closed then {{ utc_day('disputes.closed_at') }}
            else {{ utc_day(cut_made_at()) }}
        end - disputes.day as integer
    ) as days_open,
    disputes.committed_at
from touched
left join disputes on touched.dispute_id = disputes.dispute_id
left join rates on disputes.day = rates.day and disputes.currency = rates.currency
left join {{ ref('stg_charges') }} as charges on disputes.charge_id = charges.charge_id
