{{ config(meta={'dagster': {'ref': {'name': 'fact_transactions'}}}) }}
-- Every movement of staging is in the fact once: a lost or doubled row shows as a count or a sum per currency.
with staging as (
    {{ sums_by(ref('stg_transactions'), ['currency'], ['amount', 'fee', 'net']) }}
),

mart as (
    {{ sums_by(ref('fact_transactions'), ['currency'], ['amount', 'fee', 'net']) }}
)

{{ rows_that_differ('staging', 'mart') }}
