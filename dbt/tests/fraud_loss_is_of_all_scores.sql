{{ config(meta={'dagster': {'ref': {'name': 'fraud_loss'}}}) }}
-- Every charge that a version of the model scored is counted once, unless it is not in the cut yet.
with scores as (
    select
        scores.model_version,
        count(distinct charges.charge_id) as charges
    from {{ ref('int_fraud_scores') }} as scores
    inner join {{ ref('fact_charges') }} as charges on scores.charge_id = charges.charge_id
    group by scores.model_version
),

mart as (
    select
        model_version,
        sum(charges) as charges
    from {{ ref('fraud_loss') }}
    group by model_version
)

{{ rows_that_differ('scores', 'mart') }}
