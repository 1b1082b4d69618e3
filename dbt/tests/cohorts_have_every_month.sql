{{ config(meta={'dagster': {'ref': {'name': 'customer_cohorts'}}}) }}
-- From its first month to the last one, none missing, and at the end all its revenue has been added up.
select cohort_month
from {{ ref('customer_cohorts') }}
group by cohort_month
having
    count(*) <> max(months_since) + 1
    or max(months_since) <> (
        select datediff('month', customer_cohorts.cohort_month, max(days.day))
        from {{ ref('dim_date') }} as days
    )
    or max(cumulative_revenue_reporting) <> sum(revenue_reporting)
