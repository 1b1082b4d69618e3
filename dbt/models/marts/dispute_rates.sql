-- A dispute comes weeks after its charge, so a month's disputes are mostly of earlier charges. Networks divide by month
-- of the dispute, as soon as the month is over; by month of the charge the rate is truer, and grows for months.
with occurrences as (
    select
        cast(date_trunc('month', day) as date) as month,
        merchant_id,
        card_brand,
        1 as successful,
        case when amount_captured > 0 then 1 else 0 end as settled,
        0 as disputes,
        0 as disputes_of_charges,
        0 as won,
        0 as lost,
        0 as fraud_warnings,
        0 as amount_disputed
    from {{ ref('fact_charges') }}
    where status = 'succeeded'
    union all
    select
        month,
        merchant_id,
        card_brand,
        0 as successful,
        0 as settled,
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
        cast(date_trunc('month', {{ utc_day('warnings.created') }}) as date) as month,
        charges.merchant_id,
        charges.card_brand,
        0 as successful,
        0 as settled,
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
        cast(sum(disputes) as bigint) as disputes,
        cast(sum(disputes_of_charges) as bigint) as disputes_of_charges,
        cast(sum(won) as bigint) as won,
        cast(sum(lost) as bigint) as lost,
        cast(sum(fraud_warnings) as bigint) as fraud_warnings,
        cast({{ sum_of_all('amount_disputed') }} as bigint) as amount_disputed_reporting
    from occurrences
    group by month, merchant_id, card_brand
),

followed as (
    select
        *,
        lag(month) over (partition by merchant_id, card_brand order by month) as month_before,
        lag(successful_charges) over (partition by merchant_id, card_brand order by month) as charges_before
    from counted
),

-- A month without a row had no charges.
paired as (
    select
        *,
        case
            when cast(month_before + interval '1 month' as date) = month then charges_before else 0
        end as charges_of_month_before
    from followed
),

watched as (
    select
        paired.*,
        limits.ratio as limit_ratio,
        limits.events as limit_events,
        case paired.card_brand
            when 'visa' then paired.fraud_warnings + paired.disputes
            when 'mastercard' then paired.disputes
        end as watched_events,
        case paired.card_brand
            when 'visa' then paired.settled_charges
            when 'mastercard' then paired.charges_of_month_before
        end as watched_charges
    from paired
    left join {{ ref('card_network_limits') }} as limits on paired.card_brand = limits.card_brand
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
    case when card_brand = 'visa' then watched_ratio end as vamp_ratio,
    case when card_brand = 'mastercard' then watched_ratio end as ecm_ratio,
    watched_events >= limit_events and watched_events >= limit_ratio * watched_charges as exceeds_limit
from divided
