select
    month,
    merchant_id,
    reason,
    cast(count(*) as bigint) as disputes,
    cast(sum(case when status = 'won' then 1 else 0 end) as bigint) as won,
    cast(sum(case when status = 'lost' then 1 else 0 end) as bigint) as lost,
    cast({{ sum_of_all('amount_reporting') }} as bigint) as amount_reporting
from {{ ref('int_disputes') }}
group by month, merchant_id, reason
