{{ config(meta={'dagster': {'ref': {'name': 'fact_charges'}}}) }}
-- Fees and net of charges are the ledger's, to the cent. A ledger row whose charge is not in the cut yet is left out.
with ledger as (
    select
        ledger.currency,
        sum(ledger.fee) as fee,
        sum(ledger.net) as net
    from {{ ref('fact_transactions') }} as ledger
    where ledger.charge_id in (select charges.charge_id from {{ ref('stg_charges') }} as charges)
    group by ledger.currency
),

mart as (
    select
        settlement_currency as currency,
        sum(fee) as fee,
        sum(net) as net
    from {{ ref('fact_charges') }}
    where settlement_currency is not null
    group by settlement_currency
)

{{ rows_that_differ('ledger', 'mart') }}
