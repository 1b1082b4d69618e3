{{ config(meta={'dagster': {'ref': {'name': 'merchant_gmv'}}}) }}
-- What the charges of each month, merchant and currency captured, and the same in the reporting currency.
with charges as (
    select
        {{ month_of('day') }} as month,
        merchant_id,
        currency,
        count(*) as charges,
        sum(amount_captured) as gmv,
        {{ sum_of_all('amount_captured_reporting') }} as gmv_reporting
    from {{ ref('fact_charges') }}
    where status = 'succeeded'
    group by {{ month_of('day') }}, merchant_id, currency
),

mart as (
    select
        month,
        merchant_id,
        currency,
        sum(charges) as charges,
        sum(gmv) as gmv,
        sum(gmv_reporting) as gmv_reporting
    from {{ ref('merchant_gmv') }}
    group by month, merchant_id, currency
)

{{ rows_that_differ('charges', 'mart') }}
