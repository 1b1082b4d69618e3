-- Every day from the month of the first charge or ledger row to the cut, or to a later row if one is dated ahead.
with used_days as (
    select day from {{ ref('fact_charges') }}
    union all
    select day from {{ ref('fact_transactions') }}
),

cut as (
    select cast({{ cut_made_at() }} at time zone 'UTC' as date) as day
),

bounds as (
    select
        date_trunc('month', coalesce(min(used_days.day), any_value(cut.day))) as first_day,
        greatest(any_value(cut.day), max(used_days.day)) as last_day
    from cut
    left join used_days on true
),

days as (
    select cast(unnest(generate_series(first_day, last_day, interval 1 day)) as date) as day
    from bounds
)

select
    day,
    cast(date_part('year', day) as integer) as year,
    cast(date_part('quarter', day) as integer) as quarter,
    cast(date_part('month', day) as integer) as month,
    monthname(day) as month_name,
    cast(date_trunc('month', day) as date) as month_start,
    cast(date_part('isoyear', day) as integer) as iso_year,
    cast(date_part('week', day) as integer) as iso_week,
    cast(date_part('day', day) as integer) as day_of_month,
    cast(date_part('isodow', day) as integer) as day_of_week,
    dayname(day) as day_name,
    date_part('isodow', day) >= 6 as is_weekend
from days
