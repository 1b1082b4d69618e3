{{ config(meta={'dagster': {'ref': {'name': 'decline_codes'}}}) }}
-- Every charge that failed is counted once, on its day, for its merchant and code.
with charges as (
    select
        day,
        merchant_id,
        coalesce(decline_code, failure_code) as decline_code,
        count(*) as declined
    from {{ ref('fact_charges') }}
    where status = 'failed'
    group by day, merchant_id, coalesce(decline_code, failure_code)
),

mart as (
    select
        day,
        merchant_id,
        decline_code,
        sum(declined) as declined
    from {{ ref('decline_codes') }}
    group by day, merchant_id, decline_code
)

{{ rows_that_differ('charges', 'mart') }}
