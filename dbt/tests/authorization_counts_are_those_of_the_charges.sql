{{ config(meta={'dagster': {'ref': {'name': 'authorization_rates'}}}) }}
-- Every charge is an attempt of its day, once, and every intent one payment, on whatever day.
with charges as (
    select
        day,
        count(*) as attempted,
        sum(case when status = 'succeeded' then 1 else 0 end) as succeeded,
        sum(case when outcome_type = 'blocked' then 1 else 0 end) as blocked,
        sum(case when network_status in ('approved_by_network', 'reversed_after_approval') then 1 else 0 end)
            as authorized
    from {{ ref('fact_charges') }}
    group by day
    union all
    select
        null as day,
        count(distinct coalesce(payment_intent_id, charge_id)) as attempted,
        null as succeeded,
        null as blocked,
        null as authorized
    from {{ ref('fact_charges') }}
),

mart as (
    select
        day,
        sum(attempted) as attempted,
        sum(succeeded) as succeeded,
        sum(blocked) as blocked,
        sum(authorized) as authorized
    from {{ ref('authorization_rates') }}
    group by day
    union all
    select
        null as day,
        coalesce(sum(payments), 0) as attempted,
        null as succeeded,
        null as blocked,
        null as authorized
    from {{ ref('authorization_rates') }}
)

{{ rows_that_differ('charges', 'mart') }}
