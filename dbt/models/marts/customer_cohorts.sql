-- A customer is of the month of their first charge that succeeded, with whichever merchant; guests are of none.
with by_customer as (
    select
        customer_id,
        month,
        sum(amount_captured_reporting) as revenue,
        count(*) - count(amount_captured_reporting) as charges_without_rate,
        min(month) over (partition by customer_id) as cohort_month
    from {{ ref('int_succeeded_charges') }}
    where customer_id is not null
    group by customer_id, month
),

by_month as (
    select
        cohort_month,
        month,
        count(*) as retained,
        coalesce(sum(revenue), 0) as revenue,
        sum(charges_without_rate) as charges_without_rate
    from by_customer
    group by cohort_month, month
),

months as (
    select distinct month_start as month
    from {{ ref('dim_date') }}
),

-- Of the month itself all are there.
ages as (
    select
        cohorts.cohort_month,
        months.month,
        cohorts.retained as customers
    from by_month as cohorts
    inner join months on cohorts.cohort_month <= months.month
    where cohorts.cohort_month = cohorts.month
),

filled as (
    select
        ages.cohort_month,
        datediff('month', ages.cohort_month, ages.month) as months_since,
        ages.customers,
        coalesce(by_month.retained, 0) as retained,
        coalesce(by_month.revenue, 0) as revenue,
        sum(coalesce(by_month.revenue, 0)) over (
            partition by ages.cohort_month order by ages.month
            rows between unbounded preceding and current row
        ) as cumulative_revenue,
        coalesce(by_month.charges_without_rate, 0) as charges_without_rate
    from ages
    left join by_month on ages.cohort_month = by_month.cohort_month and ages.month = by_month.month
)

select
    cohort_month,
    cast(months_since as integer) as months_since,
    cast(customers as bigint) as customers,
    cast(retained as bigint) as retained,
    cast(retained as double) / customers as retention,
    cast(revenue as bigint) as revenue_reporting,
    cast(cumulative_revenue as bigint) as cumulative_revenue_reporting,
    cast(cumulative_revenue as double) / customers as ltv_reporting,
    cast(charges_without_rate as bigint) as charges_without_rate
from filled
