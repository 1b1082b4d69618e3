{{ config(meta={'dagster': {'ref': {'name': 'fact_refunds'}}}) }}
-- Every refund of staging is in the fact once: a lost or doubled row shows as a count or a sum per currency.
with staging as (
    {{ sums_by(ref('stg_refunds'), ['currency', 'status'], ['amount']) }}
),

mart as (
    {{ sums_by(ref('fact_refunds'), ['currency', 'status'], ['amount']) }}
)

{{ rows_that_differ('staging', 'mart') }}
