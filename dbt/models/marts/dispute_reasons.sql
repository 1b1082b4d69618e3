select
    month,
    merchant_id,
    reason,
    count(*) as disputes,
    cast(sum(case when status = 'won' then 1 else 0 end) as bigint) as won,
    cast(sum(case when status = 'lost' then 1 else 0 end) as bigint) as lost,
    cast(
        case when count(*) = count(amount_reporting) then sum(amount_reporting) end as bigint
    ) as amount_reporting
from {{ ref('int_disputes') }}
group by month, merchant_id, reason
