{{ config(meta={'dagster': {'ref': {'name': 'customer_cohorts'}}}) }}
-- Every customer who paid is in one cohort, and every month's charges are in one age of it.
with charges as (
    select
        month,
        count(distinct customer_id) as retained,
        coalesce(sum(amount_captured_reporting), 0) as revenue,
        count(*) - count(amount_captured_reporting) as charges_without_rate
    from {{ ref('int_succeeded_charges') }}
    where customer_id is not null
    group by month
    union all
    select
        null as month,
        count(distinct customer_id) as retained,
        null as revenue,
        null as charges_without_rate
    from {{ ref('int_succeeded_charges') }}
),

months as (
    select distinct month_start as month
    from {{ ref('dim_date') }}
),

ages as (
    select
        months.month,
        cohorts.months_since,
        cohorts.customers,
        cohorts.retained,
        cohorts.revenue_reporting,
        cohorts.charges_without_rate
    from {{ ref('customer_cohorts') }} as cohorts
    inner join months on cohorts.months_since = datediff('month', cohorts.cohort_month, months.month)
),

mart as (
    select
        month,
        sum(retained) as retained,
        sum(revenue_reporting) as revenue,
        sum(charges_without_rate) as charges_without_rate
    from ages
    group by month
    having sum(retained) > 0
    union all
    select
        null as month,
        coalesce(sum(customers), 0) as retained,
        null as revenue,
        null as charges_without_rate
    from ages
    where months_since = 0
)

{{ rows_that_differ('charges', 'mart') }}
