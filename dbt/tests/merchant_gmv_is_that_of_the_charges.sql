{{ config(meta={'dagster': {'ref': {'name': 'merchant_gmv'}}}) }}
-- What the charges of each month, merchant and currency captured, and the same in the reporting currency.
with charges as (
    select
        cast(date_trunc('month', charges.day) as date) as month,
        charges.merchant_id,
        charges.currency,
        count(*) as charges,
        sum(charges.amount_captured) as gmv,
        case
            when count(*) = count(succeeded.amount_captured_reporting) then sum(succeeded.amount_captured_reporting)
        end as gmv_reporting
    from {{ ref('fact_charges') }} as charges
    left join {{ ref('int_succeeded_charges') }} as succeeded on charges.charge_id = succeeded.charge_id
    where charges.status = 'succeeded'
    group by cast(date_trunc('month', charges.day) as date), charges.merchant_id, charges.currency
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
