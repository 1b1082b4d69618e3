{{ config(meta={'dagster': {'ref': {'name': 'mrr'}}}) }}
-- From one month to the next, up to that of the cut, MRR in each currency changes by its movements: no item falls out.
with months as (
    select
        month,
        currency,
        mrr,
        change
    from {{ ref('mrr') }}
    union all
    select
        cast(month + interval '1 month' as date) as month,
        currency,
        -mrr as mrr,
        0 as change
    from {{ ref('mrr') }}
)

select
    month,
    currency
from months
where month <= {{ utc_day(cut_made_at()) }}
group by month, currency
having sum(mrr) <> sum(change)
