{{ config(meta={'dagster': {'ref': {'name': 'customer_rfm'}}}) }}
-- Every charge of a customer is counted once, and what was captured is in the money unless there was no rate.
with charges as (
    select
        count(distinct charges.customer_id) as customers,
        count(succeeded.charge_id) as frequency,
        count(succeeded.charge_id) - count(succeeded.amount_captured_reporting) as charges_without_rate,
        coalesce(sum(succeeded.amount_captured_reporting), 0) as monetary,
        coalesce(sum(case when charges.status = 'failed' then 1 else 0 end), 0) as failed
    from {{ ref('fact_charges') }} as charges
    left join {{ ref('int_succeeded_charges') }} as succeeded on charges.charge_id = succeeded.charge_id
    where charges.customer_id is not null
),

mart as (
    select
        count(*) as customers,
        coalesce(sum(frequency), 0) as frequency,
        coalesce(sum(charges_without_rate), 0) as charges_without_rate,
        coalesce(sum(monetary_reporting), 0) as monetary,
        coalesce(sum(failed_charges), 0) as failed
    from {{ ref('customer_rfm') }}
)

{{ rows_that_differ('charges', 'mart') }}
