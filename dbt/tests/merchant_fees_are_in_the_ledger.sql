{{ config(meta={'dagster': {'ref': {'name': 'merchant_gmv'}}}) }}
-- The fees of a row are those of the ledger in its currency, unless some were taken in another.
with ledger as (
    select
        cast(date_trunc('month', charges.day) as date) as month,
        charges.merchant_id,
        charges.currency,
        sum(transactions.fee) as fees
    from {{ ref('fact_charges') }} as charges
    inner join {{ ref('fact_transactions') }} as transactions
        on charges.charge_id = transactions.charge_id and charges.currency = transactions.currency
    where charges.status = 'succeeded'
    group by cast(date_trunc('month', charges.day) as date), charges.merchant_id, charges.currency
)

select mart.month
from {{ ref('merchant_gmv') }} as mart
left join ledger
    on
        mart.month = ledger.month
        and mart.merchant_id = ledger.merchant_id
        and mart.currency = ledger.currency
where mart.fees <> coalesce(ledger.fees, 0)
