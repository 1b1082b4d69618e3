{{ config(materialized='view') }}
select
    charge_id,
    merchant_id,
    customer_id,
    currency,
    amount_captured,
    amount_captured_reporting,
    created,
    day,
    {{ month_of('day') }} as month
from {{ ref('fact_charges') }}
where status = 'succeeded'
