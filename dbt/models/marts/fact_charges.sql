{{ rebuilt_by_key(['charge_id']) }}
with touched as (
    {% call touched(ref('stg_charges'), ['charge_id']) %}
    {{ changed('charges', 'id as charge_id') }}
    union all
    {{ changed('charge_outcomes', 'charge_id') }}
    union all
    select charge_id from {{ ref('stg_charges') }}
    where payment_method_id in ({{ payment_methods_changed() }})
    union all
    {{ charges_of_ledger_changed() }}
    union all
    {{ of_rates_changed(ref('stg_charges'), ['charge_id']) }}
    union all
    {{ of_rates_changed(ref('fact_transactions'), ['charge_id']) }}
    {% endcall %}
),

charges as (
    select
        attempts.*,
        {{ utc_day('attempts.created') }} as day
    from {{ ref('stg_charges') }} as attempts
    inner join touched on attempts.charge_id = touched.charge_id
),

rates as (
    {{ rates_by_day('charges') }}
),

ledger as (
    select
        transactions.charge_id,
        sum(transactions.fee) as fee,
        sum(transactions.net) as net,
        {{ sum_of_all('transactions.fee_reporting') }} as fee_reporting,
        {{ sum_of_all('transactions.net_reporting') }} as net_reporting,
        min(transactions.currency) as settlement_currency
    from {{ ref('fact_transactions') }} as transactions
    inner join touched on transactions.charge_id = touched.charge_id
    group by transactions.charge_id
),

disputes as (
    select
        opened.charge_id,
        sum(opened.amount) as amount
    from {{ ref('stg_disputes') }} as opened
    inner join touched on opened.charge_id = touched.charge_id
    where not {{ is_inquiry('opened.status') }}
    group by opened.charge_id
)

select
    touched.charge_id,
    charges.merchant_id,
    charges.customer_id,
    charges.payment_method_id,
    charges.payment_intent_id,
    charges.amount,
    charges.amount_captured,
    charges.amount_refunded,
    cast(coalesce(disputes.amount, 0) as bigint) as amount_disputed,
    charges.currency,
    cast(coalesce(ledger.fee, 0) as bigint) as fee,
    cast(coalesce(ledger.net, 0) as bigint) as net,
    ledger.settlement_currency,
    {{ in_reporting_currency('charges.amount_captured', 'rates.rate', 'rates.exponent') }} as amount_captured_reporting,
    cast(case when ledger.charge_id is null then 0 else ledger.fee_reporting end as bigint) as fee_reporting,
    cast(case when ledger.charge_id is null then 0 else ledger.net_reporting end as bigint) as net_reporting,
    charges.status,
    charges.paid,
    charges.captured,
    charges.refunded,
    charges.disputed,
    charges.failure_code,
    charges.decline_code,
    charges.three_d_secure_result,
    outcomes.type as outcome_type,
    outcomes.network_status,
    outcomes.risk_level,
    outcomes.risk_score,
    cards.brand as card_brand,
    cards.funding as card_funding,
    cards.issuer_country as card_country,
    payment_methods.wallet,
    charges.shipping_country,
    charges.livemode,
    charges.created,
    charges.day,
    charges.committed_at
from touched
left join charges on touched.charge_id = charges.charge_id
left join rates on charges.day = rates.day and charges.currency = rates.currency
left join ledger on charges.charge_id = ledger.charge_id
left join disputes on charges.charge_id = disputes.charge_id
left join {{ ref('stg_charge_outcomes') }} as outcomes
    on charges.charge_id = outcomes.charge_id and charges.created = outcomes.charge_created
left join {{ ref('stg_payment_methods') }} as payment_methods
    on charges.payment_method_id = payment_methods.payment_method_id
left join {{ ref('stg_card_fingerprints') }} as cards
    on payment_methods.card_fingerprint = cards.fingerprint
