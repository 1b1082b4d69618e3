-- Each charge is an attempt. The attempts of one intent are one payment, which stands where its deciding attempt does:
-- the one that succeeded, else the last. Whatever happened after the answer (refund, dispute) is not looked at.
with attempts as (
    select
        charge_id,
        coalesce(payment_intent_id, charge_id) as payment_id,
        day,
        card_brand,
        card_country,
        merchant_id,
        created,
        case when status = 'succeeded' then 1 else 0 end as succeeded,
        case when outcome_type = 'blocked' then 1 else 0 end as blocked,
        case when network_status <> 'not_sent_to_network' then 1 else 0 end as sent,
        case when network_status = 'not_sent_to_network' then 1 else 0 end as not_sent,
        case when network_status is null then 1 else 0 end as without_outcome,
        case when network_status in ('approved_by_network', 'reversed_after_approval') then 1 else 0 end as authorized
    from {{ ref('fact_charges') }}
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
        day,
        card_brand,
        card_country,
        merchant_id,
        count(*) as attempted,
        sum(sent) as sent_to_network,
        sum(not_sent) as not_sent_to_network,
        sum(without_outcome) as without_outcome,
        sum(blocked) as blocked,
        sum(authorized) as authorized,
        sum(succeeded) as succeeded,
        sum(case when place = 1 then 1 else 0 end) as payments,
        sum(case when place = 1 then payment_sent else 0 end) as payments_sent_to_network,
        sum(case when place = 1 then blocked else 0 end) as payments_blocked,
        sum(case when place = 1 then payment_authorized else 0 end) as payments_authorized,
        sum(case when place = 1 then succeeded else 0 end) as payments_succeeded
    from placed
    group by day, card_brand, card_country, merchant_id
)

select
    day,
    card_brand,
    card_country,
    merchant_id,
    cast(attempted as bigint) as attempted,
    cast(sent_to_network as bigint) as sent_to_network,
    cast(not_sent_to_network as bigint) as not_sent_to_network,
    cast(without_outcome as bigint) as without_outcome,
    cast(blocked as bigint) as blocked,
    cast(authorized as bigint) as authorized,
    cast(succeeded as bigint) as succeeded,
    cast(succeeded as double) / nullif(attempted, 0) as payment_success_rate,
    cast(authorized as double) / nullif(sent_to_network, 0) as network_authorization_rate,
    cast(payments as bigint) as payments,
    cast(payments_sent_to_network as bigint) as payments_sent_to_network,
    cast(payments_blocked as bigint) as payments_blocked,
    cast(payments_authorized as bigint) as payments_authorized,
    cast(payments_succeeded as bigint) as payments_succeeded,
    cast(payments_succeeded as double) / nullif(payments, 0) as payment_success_rate_by_payment,
    cast(payments_authorized as double) / nullif(payments_sent_to_network, 0) as network_authorization_rate_by_payment
from counted
