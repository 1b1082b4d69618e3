with attempts as (
    select
        customer_id,
        sum(case when status = 'failed' then 1 else 0 end) as failed_charges
    from {{ ref('fact_charges') }}
    where customer_id is not null
    group by customer_id
),

payments as (
    select
        customer_id,
        min(created) as first_charge_at,
        max(created) as last_charge_at,
        max(day) as last_day,
        count(*) as frequency,
        coalesce(sum(amount_captured_reporting), 0) as monetary,
        count(*) - count(amount_captured_reporting) as charges_without_rate
    from {{ ref('int_succeeded_charges') }}
    where customer_id is not null
    group by customer_id
),

cut as (
    select {{ utc_day(cut_made_at()) }} as day
),

-- Who never paid has no score. Equals are parted by their id, so that every build says the same.
scored as (
    select
        payments.customer_id,
        payments.first_charge_at,
        payments.last_charge_at,
        greatest(datediff('day', payments.last_day, cut.day), 0) as recency_days,
        payments.frequency,
        payments.monetary,
        payments.charges_without_rate,
        ntile(5) over (order by payments.last_charge_at, payments.customer_id) as recency_score,
        ntile(5) over (order by payments.frequency, payments.customer_id) as frequency_score,
        ntile(5) over (order by payments.monetary, payments.customer_id) as monetary_score
    from payments
    cross join cut
)

select
    attempts.customer_id,
    customers.merchant_id,
    scored.first_charge_at,
    scored.last_charge_at,
    cast(scored.recency_days as integer) as recency_days,
    cast(coalesce(scored.frequency, 0) as bigint) as frequency,
    cast(coalesce(scored.monetary, 0) as bigint) as monetary_reporting,
    cast(coalesce(scored.charges_without_rate, 0) as bigint) as charges_without_rate,
    cast(attempts.failed_charges as bigint) as failed_charges,
    cast(scored.recency_score as integer) as recency_score,
    cast(scored.frequency_score as integer) as frequency_score,
    cast(scored.monetary_score as integer) as monetary_score
from attempts
left join scored on attempts.customer_id = scored.customer_id
left join {{ ref('stg_customers') }} as customers on attempts.customer_id = customers.customer_id
