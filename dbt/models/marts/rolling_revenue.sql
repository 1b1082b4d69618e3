{% set seven_days = 'partition by currency order by day rows between 6 preceding and current row' -%}
{% set four_weeks = 'partition by currency order by day rows between 27 preceding and current row' -%}
with daily as (
    select
        day,
        currency,
        sum(gross) as gross,
        sum(net) as net
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
        coalesce(daily.net, 0) as net
    from currencies
    inner join {{ ref('dim_date') }} as days on currencies.first_day <= days.day
    left join daily on days.day = daily.day and currencies.currency = daily.currency
)

select
    day,
    currency,
    cast(gross as bigint) as gross,
    cast(net as bigint) as net,
    cast(sum(gross) over ({{ seven_days }}) as bigint) as gross_7_days,
    cast(sum(gross) over ({{ four_weeks }}) as bigint) as gross_28_days,
    cast(sum(net) over ({{ seven_days }}) as bigint) as net_7_days,
    cast(sum(net) over ({{ four_weeks }}) as bigint) as net_28_days,
    cast(
        sum(net) over (partition by currency order by day rows between unbounded preceding and current row) as bigint
    ) as balance
from every_day
