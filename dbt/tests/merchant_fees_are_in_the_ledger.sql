{{ config(meta={'dagster': {'ref': {'name': 'merchant_gmv'}}}) }}
-- The fees of a row are those of its charges in its currency, unless some were taken in another.
with charges as (
    select
        {{ month_of('day') }} as month,
        merchant_id,
        currency,
        sum(case when settlement_currency = currency then fee else 0 end) as fees
    from {{ ref('fact_charges') }}
    where status = 'succeeded'
    group by {{ month_of('day') }}, merchant_id, currency
)

select mart.month
from {{ ref('merchant_gmv') }} as mart
left join charges
    on
        mart.month = charges.month
        and mart.merchant_id = charges.merchant_id
        and mart.currency = charges.currency
where mart.fees <> coalesce(charges.fees, 0)
