{%- set months = [
    'January', 'February', 'March', 'April', 'May', 'June',
    'July', 'August', 'September', 'October', 'November', 'December',
] -%}
{%- set weekdays = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'] -%}
-- Every day from the month of the first charge or ledger row to the cut, or to a later row if one is dated ahead.
with used_days as (
    select day from {{ ref('fact_charges') }}
    union all
    select day from {{ ref('fact_transactions') }}
    union all
    select {{ utc_day(cut_made_at()) }} as day
),

bounds as (
    select
        {{ month_of('min(day)') }} as first_day,
        max(day) as last_day
    from used_days
),

digits as (
    {% for digit in range(10) -%}
        select {{ digit }} as digit{{ ' union all' if not loop.last }}
    {% endfor %}
),

-- Enough for 273 years.
numbers as (
    select ones.digit + 10 * tens.digit + 100 * hundreds.digit + 1000 * thousands.digit + 10000 * myriads.digit as days
    from digits as ones
    cross join digits as tens
    cross join digits as hundreds
    cross join digits as thousands
    cross join digits as myriads
),

days as (
    select cast({{ plus_days('bounds.first_day', 'numbers.days') }} as date) as day
    from bounds
    inner join numbers on bounds.last_day - bounds.first_day >= numbers.days
),

-- 3 January 2000 was a Monday. The year and week of an ISO week are those of its Thursday.
placed as (
    select
        day,
        cast(mod(mod(day - cast('2000-01-03' as date), 7) + 7, 7) + 1 as integer) as day_of_week
    from days
),

weeks as (
    select
        day,
        day_of_week,
        cast({{ plus_days('day', '4 - day_of_week') }} as date) as thursday
    from placed
)

select
    day,
    cast(extract(year from day) as integer) as year,
    cast(extract(quarter from day) as integer) as quarter,
    cast(extract(month from day) as integer) as month,
    {{ name_of('extract(month from day)', months) }} as month_name,
    {{ month_of('day') }} as month_start,
    cast(extract(year from thursday) as integer) as iso_year,
    cast(floor((thursday - cast(date_trunc('year', thursday) as date)) / 7) + 1 as integer) as iso_week,
    cast(extract(day from day) as integer) as day_of_month,
    day_of_week,
    {{ name_of('day_of_week', weekdays) }} as day_name,
    day_of_week >= 6 as is_weekend
from weeks
