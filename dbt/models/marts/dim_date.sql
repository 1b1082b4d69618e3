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
        cast({{ dbt.date_trunc('month', 'min(day)') }} as date) as first_day,
        max(day) as last_day
    from used_days
),

-- Enough for 89 years.
numbers as (
    {{ dbt.generate_series(32768) }}
),

days as (
    select
        cast({{ dbt.dateadd('day', 'cast(numbers.generated_number - 1 as integer)', 'bounds.first_day') }} as date) as day
    from bounds
    inner join numbers
        on numbers.generated_number <= {{ dbt.datediff('bounds.first_day', 'bounds.last_day', 'day') }} + 1
),

-- 3 January 2000 was a Monday; the week of an ISO year is that of its Thursday.
placed as (
    select
        day,
        mod(mod({{ dbt.datediff("cast('2000-01-03' as date)", 'day', 'day') }}, 7) + 7, 7) + 1 as day_of_week
    from days
),

thursdays as (
    select
        day,
        day_of_week,
        cast({{ dbt.dateadd('day', '4 - day_of_week', 'day') }} as date) as thursday
    from placed
)

select
    thursdays.day,
    cast(extract(year from thursdays.day) as integer) as year,
    cast(extract(quarter from thursdays.day) as integer) as quarter,
    cast(extract(month from thursdays.day) as integer) as month,
    {{ name_of('extract(month from thursdays.day)', months) }} as month_name,
    cast({{ dbt.date_trunc('month', 'thursdays.day') }} as date) as month_start,
    cast(extract(year from thursdays.thursday) as integer) as iso_year,
    cast(floor((extract(dayofyear from thursdays.thursday) - 1) / 7) + 1 as integer) as iso_week,
    cast(extract(day from thursdays.day) as integer) as day_of_month,
    cast(thursdays.day_of_week as integer) as day_of_week,
    {{ name_of('thursdays.day_of_week', weekdays) }} as day_name,
    thursdays.day_of_week >= 6 as is_weekend
from thursdays
