{{ config(meta={'dagster': {'ref': {'name': 'rolling_revenue'}}}) }}
-- Each total anew, from the revenue of the days that it spans.
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

ages as (
    select
        rolling.day,
        rolling.currency,
        datediff('day', daily.day, rolling.day) as age,
        daily.gross,
        daily.net,
        daily.gross_reporting,
        daily.net_reporting
    from {{ ref('rolling_revenue') }} as rolling
    inner join daily on rolling.currency = daily.currency and rolling.day >= daily.day
),

totals as (
    select
        day,
        currency,
        sum(case when age = 0 then gross else 0 end) as gross,
        sum(case when age = 0 then net else 0 end) as net,
        sum(case when age < 7 then gross else 0 end) as gross_7_days,
        sum(case when age < 28 then gross else 0 end) as gross_28_days,
        sum(case when age < 7 then net else 0 end) as net_7_days,
        sum(case when age < 28 then net else 0 end) as net_28_days,
        sum(net) as balance,
        {{ sum_of_all('case when age = 0 then gross_reporting else 0 end') }} as gross_reporting,
        {{ sum_of_all('case when age = 0 then net_reporting else 0 end') }} as net_reporting,
        {{ sum_of_all('case when age < 7 then gross_reporting else 0 end') }} as gross_7_days_reporting,
        {{ sum_of_all('case when age < 28 then gross_reporting else 0 end') }} as gross_28_days_reporting,
        {{ sum_of_all('case when age < 7 then net_reporting else 0 end') }} as net_7_days_reporting,
        {{ sum_of_all('case when age < 28 then net_reporting else 0 end') }} as net_28_days_reporting
    from ages
    group by day, currency
),

mart as (
    select
        day,
        currency,
        gross,
        net,
        gross_7_days,
        gross_28_days,
        net_7_days,
        net_28_days,
        balance,
        gross_reporting,
        net_reporting,
        gross_7_days_reporting,
        gross_28_days_reporting,
        net_7_days_reporting,
        net_28_days_reporting
    from {{ ref('rolling_revenue') }}
)

{{ rows_that_differ('totals', 'mart') }}
