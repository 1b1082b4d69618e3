with rates as (
    {{ rates_by_day(ref('fact_charges')) }}
)

select
    charges.charge_id,
    charges.merchant_id,
    charges.customer_id,
    charges.currency,
    charges.amount_captured,
    {{ in_reporting_currency('charges.amount_captured', 'rates.rate', 'rates.exponent') }} as amount_captured_reporting,
    charges.created,
    charges.day,
    cast(date_trunc('month', charges.day) as date) as month
from {{ ref('fact_charges') }} as charges
left join rates on charges.day = rates.day and charges.currency = rates.currency
where charges.status = 'succeeded'
