{{ config(meta={'dagster': {'ref': {'name': 'fact_charges'}}}) }}
-- The joins to cards and ledger neither lose nor double a charge.
with staging as (
    {{ sums_by(ref('stg_charges'), ['currency', 'status'], ['amount', 'amount_captured', 'amount_refunded']) }}
),

mart as (
    {{ sums_by(ref('fact_charges'), ['currency', 'status'], ['amount', 'amount_captured', 'amount_refunded']) }}
)

{{ rows_that_differ('staging', 'mart') }}
