-- A bank that only inquires has not disputed: an inquiry that becomes a dispute changes its status, and counts then.
with rates as (
    {{ rates_by_day(ref('fact_disputes')) }}
)

select
    disputes.dispute_id,
    disputes.merchant_id,
    charges.card_brand,
    cast(date_trunc('month', disputes.day) as date) as month,
    cast(date_trunc('month', charges.day) as date) as charge_month,
    disputes.reason,
    disputes.status,
    {{ in_reporting_currency('disputes.amount', 'rates.rate', 'rates.exponent') }} as amount_reporting
from {{ ref('fact_disputes') }} as disputes
left join {{ ref('fact_charges') }} as charges on disputes.charge_id = charges.charge_id
left join rates on disputes.day = rates.day and disputes.currency = rates.currency
where not disputes.is_inquiry
