{{ config(meta={'dagster': {'ref': {'name': 'fact_charges'}}}) }}
-- What is disputed of each charge is the sum of its disputes. A dispute whose charge is not in the cut yet is left out.
with disputes as (
    select
        charge_id,
        sum(amount) as amount_disputed
    from {{ ref('fact_disputes') }}
    where
        not is_inquiry
        and charge_id in (select charges.charge_id from {{ ref('fact_charges') }} as charges)
    group by charge_id
    having sum(amount) > 0
),

charges as (
    select
        charge_id,
        amount_disputed
    from {{ ref('fact_charges') }}
    where amount_disputed <> 0
)

{{ rows_that_differ('disputes', 'charges') }}
