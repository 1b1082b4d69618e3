{{ config(meta={'dagster': {'ref': {'name': 'customer_rfm'}}}) }}
-- Nobody with more of a thing is scored below one with less.
with scored as (
    select
        customer_id,
        recency_score < lag(recency_score) over (order by last_charge_at, customer_id) as is_recency_wrong,
        frequency_score < lag(frequency_score) over (order by frequency, customer_id) as is_frequency_wrong,
        monetary_score < lag(monetary_score) over (order by monetary_reporting, customer_id) as is_monetary_wrong
    from {{ ref('customer_rfm') }}
    where frequency > 0
)

select customer_id
from scored
where is_recency_wrong or is_frequency_wrong or is_monetary_wrong
