-- A bank that only inquires has not disputed: an inquiry that becomes a dispute changes its status, and counts then.
select
    disputes.dispute_id,
    disputes.merchant_id,
    charges.card_brand,
    {{ month_of('disputes.day') }} as month,
    {{ month_of('charges.day') }} as charge_month,
    disputes.reason,
    disputes.status,
    disputes.amount_reporting
from {{ ref('fact_disputes') }} as disputes
left join {{ ref('fact_charges') }} as charges on disputes.charge_id = charges.charge_id
where not disputes.is_inquiry
