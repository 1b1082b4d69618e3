{{ config(meta={'dagster': {'ref': {'name': 'fact_disputes'}}}) }}
-- Every dispute of staging is in the fact once: a lost or doubled row shows as a count or a sum per currency.
with staging as (
    {{ sums_by(ref('stg_disputes'), ['currency', 'status'], ['amount']) }}
),

mart as (
    {{ sums_by(ref('fact_disputes'), ['currency', 'status'], ['amount']) }}
)

{{ rows_that_differ('staging', 'mart') }}
