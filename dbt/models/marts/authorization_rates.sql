{{ rebuilt_by_key(['day', 'merchant_id'], present='attempted is not null') }}
-- Each charge is an attempt. The attempts of one intent are one payment, which stands where its deciding attempt does:
-- the one that succeeded, else the last. Whatever happened after the answer (refund, dispute) is not looked at.
with touched as (
    {% call touched(ref('fact_charges'), ['day', 'merchant_id'], day='day') %}
    {{ ever_named('charges', utc_day('created') ~ ' as day, merchant_id') }}
    union all
    select day, merchant_id from {{ ref('fact_charges') }} where {{ outcome_or_card_changed() }}
    union all
    -- The attempts of one payment are placed together.
    select day, merchant_id from {{ ref('fact_charges') }}
    where payment_intent_id in (
        {{ ever_named('charges', 'payment_intent_id') }}
        union all
        select payment_intent_id from {{ ref('fact_charges') }} where {{ outcome_or_card_changed() }}
    )
    {% endcall %}
),

payments as (
    select distinct coalesce(charges.payment_intent_id, charges.charge_id) as payment_id
    from {{ ref('fact_charges') }} as charges
    where {{ is_touched('charges', ['day', 'merchant_id']) }}
),

attempts as (
    select
        charges.charge_id,
        payments.payment_id,
        charges.day,
        charges.card_brand,
        charges.card_country,
        charges.merchant_id,
        charges.created,
        case when charges.status = 'succeeded' then 1 else 0 end as succeeded,
        case when charges.outcome_type = 'blocked' then 1 else 0 end as blocked,
        case when charges.network_status <> 'not_sent_to_network' then 1 else 0 end as sent,
        case when charges.network_status = 'not_sent_to_network' then 1 else 0 end as not_sent,
        case when charges.network_status is null then 1 else 0 end as without_outcome,
        case
            when charges.network_status in ('approved_by_network', 'reversed_after_approval') then 1 else 0
        end as authorized
    from {{ ref('fact_charges') }} as charges
    inner join payments on coalesce(charges.payment_intent_id, charges.charge_id) = payments.payment_id
),

placed as (
    select
        *,
        row_number() over (
            partition by payment_id order by succeeded desc, created desc, charge_id desc
        ) as place,
        max(sent) over (partition by payment_id) as payment_sent,
        max(authorized) over (partition by payment_id) as payment_authorized
    from attempts
),

counted as (
    select
        placed.day,
        placed.card_brand,
        placed.card_country,
        placed.merchant_id,
        count(*) as attempted,
        sum(placed.sent) as sent_to_network,
        sum(placed.not_sent) as not_sent_to_network,
        sum(placed.without_outcome) as without_outcome,
        sum(placed.blocked) as blocked,
        sum(placed.authorized) as authorized,
        sum(placed.succeeded) as succeeded,
        sum(case when placed.place = 1 then 1 else 0 end) as payments,
        sum(case when placed.place = 1 then placed.payment_sent else 0 end) as payments_sent_to_network,
        sum(case when placed.place = 1 then placed.blocked else 0 end) as payments_blocked,
        sum(case when placed.place = 1 then placed.payment_authorized else 0 end) as payments_authorized,
        sum(case when placed.place = 1 then placed.succeeded else 0 end) as payments_succeeded
    from placed
    where {{ is_touched('placed', ['day', 'merchant_id']) }}
    group by placed.day, placed.card_brand, placed.card_country, placed.merchant_id
)

select
    touched.day,
    counted.card_brand,
    counted.card_country,
    touched.merchant_id,
    cast(counted.attempted as bigint) as attempted,
    cast(counted.sent_to_network as bigint) as sent_to_network,
    cast(counted.not_sent_to_network as bigint) as not_sent_to_network,
    cast(counted.without_outcome as bigint) as without_outcome,
    cast(counted.blocked as bigint) as blocked,
    cast(counted.authorized as bigint) as authorized,
    cast(counted.succeeded as bigint) as succeeded,
    cast(counted.succeeded as double) / nullif(counted.attempted, 0) as payment_success_rate,
    cast(counted.authorized as double) / nullif(counted.sent_to_network, 0) as network_authorization_rate,
    cast(counted.payments as bigint) as payments,
    cast(counted.payments_sent_to_network as bigint) as payments_sent_to_network,
    cast(counted.payments_blocked as bigint) as payments_blocked,
    cast(counted.payments_authorized as bigint) as payments_authorized,
    cast(counted.payments_succeeded as bigint) as payments_succeeded,
    cast(counted.payments_succeeded as double) / nullif(counted.payments, 0) as payment_success_rate_by_payment,
    cast(counted.payments_authorized as double)
    / nullif(counted.payments_sent_to_network, 0) as network_authorization_rate_by_payment
from touched
left join counted on touched.day = counted.day and touched.merchant_id = counted.merchant_id
