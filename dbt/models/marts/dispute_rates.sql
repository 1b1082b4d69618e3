-- A dispute comes weeks after its charge, so a month's disputes are mostly of earlier charges. Networks divide by month
-- of the dispute, as soon as the month is over; by month of the charge the rate is truer, and grows for months.
with charged as (
    select
        {{ month_of('day') }} as month,
        merchant_id,
        card_brand,
        count(*) as successful,
        sum(case when amount_captured > 0 then 1 else 0 end) as settled
    from {{ ref('fact_charges') }}
    where status = 'succeeded'
    group by {{ month_of('day') }}, merchant_id, card_brand
),

-- The month that follows has a row by itself: it may be divided by these charges though nothing else is in it.
charged_before as (
    select
        months.day as month,
        charged.merchant_id,
        charged.card_brand,
        charged.successful
    from charged
    inner join {{ ref('dim_date') }} as months on months.day = cast(charged.month + interval '1 month' as date)
),

occurrences as (
    select
        month,
        merchant_id,
        card_brand,
        successful,
        settled,
        0 as successful_before,
        0 as disputes,
        0 as disputes_of_charges,
        0 as won,
        0 as lost,
        0 as fraud_warnings,
        0 as amount_disputed
    from charged
    union all
    select
        month,
        merchant_id,
        card_brand,
        0 as successful,
        0 as settled,
        successful as successful_before,
        0 as disputes,
        0 as disputes_of_charges,
        0 as won,
        0 as lost,
        0 as fraud_warnings,
        0 as amount_disputed
    from charged_before
    union all
    select
        month,
        merchant_id,
        card_brand,
        0 as successful,
        0 as settled,
        0 as successful_before,
        1 as disputes,
        0 as disputes_of_charges,
        case when status = 'won' then 1 else 0 end as won,
        case when status = 'lost' then 1 else 0 end as lost,
        0 as fraud_warnings,
        amount_reporting as amount_disputed
    from {{ ref('int_disputes') }}
    union all
    select
        charge_month as month,
        merchant_id,
        card_brand,
        0 as successful,
        0 as settled,
        0 as successful_before,
        0 as disputes,
        1 as disputes_of_charges,
        0 as won,
        0 as lost,
        0 as fraud_warnings,
        0 as amount_disputed
    from {{ ref('int_disputes') }}
    where charge_month is not null
    union all
    select
        {{ utc_month('warnings.created') }} as month,
        charges.merchant_id,
        charges.card_brand,
        0 as successful,
        0 as settled,
        0 as successful_before,
        0 as disputes,
        0 as disputes_of_charges,
        0 as won,
        0 as lost,
        1 as fraud_warnings,
        0 as amount_disputed
    from {{ ref('stg_early_fraud_warnings') }} as warnings
    left join {{ ref('fact_charges') }} as charges on warnings.charge_id = charges.charge_id
),

counted as (
    select
        month,
        merchant_id,
        card_brand,
        cast(sum(successful) as bigint) as successful_charges,
        cast(sum(settled) as bigint) as settled_charges,
        cast(sum(successful_before) as bigint) as charges_of_month_before,
        cast(sum(disputes) as bigint) as disputes,
        cast(sum(disputes_of_charges) as bigint) as disputes_of_charges,
        cast(sum(won) as bigint) as won,
        cast(sum(lost) as bigint) as lost,
        cast(sum(fraud_warnings) as bigint) as fraud_warnings,
        cast({{ sum_of_all('amount_disputed') }} as bigint) as amount_disputed_reporting
    from occurrences
    group by month, merchant_id, card_brand
),

watched as (
    select
        counted.*,
        limits.ratio as limit_ratio,
        limits.events as limit_events,
        case counted.card_brand
            when 'visa' then counted.fraud_warnings + counted.disputes
            when 'mastercard' then counted.disputes
        end as watched_events,
        case counted.card_brand
            when 'visa' then counted.settled_charges
            when 'mastercard' then counted.charges_of_month_before
        end as watched_charges
    from counted
    left join {{ ref('card_network_limits') }} as limits on counted.card_brand = limits.card_brand
),

divided as (
    select
        *,
        cast(watched_events as double) / nullif(watched_charges, 0) as watched_ratio
    from watched
)

select
    month,
    merchant_id,
    card_brand,
    successful_charges,
    settled_charges,
    charges_of_month_before,
    disputes,
    disputes_of_charges,
    fraud_warnings,
    cast(disputes as double) / nullif(successful_charges, 0) as dispute_rate,
    cast(disputes_of_charges as double) / nullif(successful_charges, 0) as dispute_rate_of_charges,
    won,
    lost,
    cast(won as double) / nullif(won + lost, 0) as win_rate,
    amount_disputed_reporting,
    watched_events,
    watched_charges,
    case when card_brand = 'visa' then watched_ratio end as vamp_ratio,
    case when card_brand = 'mastercard' then watched_ratio end as ecm_ratio,
    watched_events >= limit_events and watched_events >= limit_ratio * watched_charges as exceeds_limit
from divided
