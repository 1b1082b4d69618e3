{{ config(meta={'dagster': {'ref': {'name': 'mrr'}}}) }}
-- The months of an item follow each other, each with what the one before it had.
with followed as (
    select
        subscription_item_id,
        month,
        previous_mrr,
        lag(month) over (partition by subscription_item_id order by month) as month_before,
        lag(mrr, 1, 0) over (partition by subscription_item_id order by month) as mrr_before
    from {{ ref('mrr') }}
)

select
    subscription_item_id,
    month
from followed
where cast(month_before + interval '1 month' as date) <> month or previous_mrr <> mrr_before
