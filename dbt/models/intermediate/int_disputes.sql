-- A bank that only inquires has not disputed: an inquiry that becomes a dispute changes its status, and counts then.
select
    disputes.dispute_id,
    disputes.merchant_id,
    charges.card_brand,
    cast(date_trunc('month', disputes.day) as date) as month,
    cast(date_trunc('month', charges.day) as date) as charge_month,
    disputes.reason,
    disputes.status,
    disputes.amount_reporting
from {{ ref('fact_disputes') }} as disputes
left join {{ ref('fact_charges') }} as charges on disputes.charge_id = charges.charge_id
where not disputes.is_inquiry
