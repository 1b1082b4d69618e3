{% set seven_days = 'over (partition by currency order by day rows between 6 preceding and current row)' -%}
{% set four_weeks = 'over (partition by currency order by day rows between 27 preceding and current row)' -%}
with daily as (
    select
        day,
        currency,
        sum(gross) as gross,
        sum(net) as net,
        {{ sum_of_all('gross_reporting') }} as gross_reporting,
        {{ sum_of_all('net_reporting') }} as net_reporting
    from {{ ref('daily_revenue') }}
    group by day, currency
),

currencies as (
    select
        currency,
        min(day) as first_day
    from daily
    group by currency
),

-- A row a day, for the windows count rows.
every_day as (
    select
        days.day,
        currencies.currency,
        coalesce(daily.gross, 0) as gross,
        coalesce(daily.net, 0) as net,
        case when daily.day is null then 0 else daily.gross_reporting end as gross_reporting,
        case when daily.day is null then 0 else daily.net_reporting end as net_reporting
    from currencies
    inner join {{ ref('dim_date') }} as days on currencies.first_day <= days.day
    left join daily on days.day = daily.day and currencies.currency = daily.currency
)

select
    day,
    currency,
    cast(gross as bigint) as gross,
    cast(net as bigint) as net,
    cast(sum(gross) {{ seven_days }} as bigint) as gross_7_days,
    cast(sum(gross) {{ four_weeks }} as bigint) as gross_28_days,
    cast(sum(net) {{ seven_days }} as bigint) as net_7_days,
    cast(sum(net) {{ four_weeks }} as bigint) as net_28_days,
    cast(
        sum(net) over (partition by currency order by day rows between unbounded preceding and current row) as bigint
    ) as balance,
    cast(gross_reporting as bigint) as gross_reporting,
    cast(net_reporting as bigint) as net_reporting,
    cast({{ sum_of_all('gross_reporting', seven_days) }} as bigint) as gross_7_days_reporting,
    cast({{ sum_of_all('gross_reporting', four_weeks) }} as bigint) as gross_28_days_reporting,
    cast({{ sum_of_all('net_reporting', seven_days) }} as bigint) as net_7_days_reporting,
    cast({{ sum_of_all('net_reporting', four_weeks) }} as bigint) as net_28_days_reporting
from every_day
