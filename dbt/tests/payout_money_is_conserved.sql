{{ config(meta={'dagster': {'ref': {'name': 'fact_payouts'}}}) }}
-- Every payout of staging is in the fact once: a lost or doubled row shows as a count or a sum per currency.
with staging as (
    {{ sums_by(ref('stg_payouts'), ['currency', 'status'], ['amount']) }}
),

mart as (
    {{ sums_by(ref('fact_payouts'), ['currency', 'status'], ['amount']) }}
)

{{ rows_that_differ('staging', 'mart') }}
