{{ config(meta={'dagster': {'ref': {'name': 'dim_date'}}}) }}
-- One row per day, none missing in between.
select
    min(day) as first_day,
    max(day) as last_day
from {{ ref('dim_date') }}
having count(*) <> max(day) - min(day) + 1
