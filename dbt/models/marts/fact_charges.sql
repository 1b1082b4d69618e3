{{ rebuilt_by_key('charge_id') }}
with touched as (
    {% call touched(ref('stg_charges'), 'charge_id') %}
    {{ changed('charges', 'id as charge_id') }}
    union all
    {{ changed('charge_outcomes', 'charge_id') }}
    union all
    select charge_id from {{ ref('stg_charges') }}
    where payment_method_id in ({{ payment_methods_changed() }})
    union all
    {{ charges_of_ledger_changed() }}
    {% endcall %}
),

ledger as (
    select
        transactions.charge_id,
        sum(transactions.fee) as fee,
        sum(transactions.net) as net,
        min(transactions.currency) as settlement_currency
    from {{ ref('fact_transactions') }} as transactions
    inner join touched on transactions.charge_id = touched.charge_id
    group by transactions.charge_id
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
    charges.currency,
    cast(coalesce(ledger.fee, 0) as bigint) as fee,
    cast(coalesce(ledger.net, 0) as bigint) as net,
    ledger.settlement_currency,
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
    {{ utc_day('charges.created') }} as day,
    charges.committed_at
from touched
left join {{ ref('stg_charges') }} as charges on touched.charge_id = charges.charge_id
left join ledger on charges.charge_id = ledger.charge_id
left join {{ ref('stg_charge_outcomes') }} as outcomes
    on charges.charge_id = outcomes.charge_id and charges.created = outcomes.charge_created
left join {{ ref('stg_payment_methods') }} as payment_methods
    on charges.payment_method_id = payment_methods.payment_method_id
left join {{ ref('stg_card_fingerprints') }} as cards
    on payment_methods.card_fingerprint = cards.fingerprint
