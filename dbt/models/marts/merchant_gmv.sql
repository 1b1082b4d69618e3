with orders as (
    select
        month,
        merchant_id,
        currency,
        sum(amount_captured) as gmv,
        count(*) as charges,
        count(distinct customer_id) as active_customers,
        case when count(*) = count(amount_captured_reporting) then sum(amount_captured_reporting) end as gmv_reporting
    from {{ ref('int_succeeded_charges') }}
    group by month, merchant_id, currency
),

rates as (
    {{ rates_by_day(ref('fact_transactions')) }}
),

-- Each fee by the rate of the day on which it was taken: that of a dispute comes months after its charge.
fees_of_charges as (
    select
        charges.month,
        charges.merchant_id,
        charges.currency,
        case when ledger.currency = charges.currency then ledger.fee end as fee,
        {{ in_reporting_currency('ledger.fee', 'rates.rate', 'rates.exponent') }} as fee_reporting
    from {{ ref('fact_transactions') }} as ledger
    inner join {{ ref('int_succeeded_charges') }} as charges on ledger.charge_id = charges.charge_id
    left join rates on ledger.day = rates.day and ledger.currency = rates.currency
    where ledger.fee <> 0
),

fees as (
    select
        month,
        merchant_id,
        currency,
        case when count(*) = count(fee) then sum(fee) end as fees,
        case when count(*) = count(fee_reporting) then sum(fee_reporting) end as fees_reporting
    from fees_of_charges
    group by month, merchant_id, currency
),

joined as (
    select
        orders.month,
        orders.merchant_id,
        orders.currency,
        orders.gmv,
        orders.charges,
        orders.active_customers,
        orders.gmv_reporting,
        case when fees.month is null then 0 else fees.fees end as fees,
        case when fees.month is null then 0 else fees.fees_reporting end as fees_reporting
    from orders
    left join fees
        on
            orders.month = fees.month
            and orders.merchant_id = fees.merchant_id
            and orders.currency = fees.currency
)

select
    month,
    merchant_id,
    currency,
    cast(gmv as bigint) as gmv,
    cast(charges as bigint) as charges,
    cast(fees as bigint) as fees,
    cast(fees_reporting as double) / nullif(gmv_reporting, 0) as take_rate,
    cast(active_customers as bigint) as active_customers,
    cast(gmv as double) / charges as average_order,
    cast(gmv_reporting as bigint) as gmv_reporting,
    cast(fees_reporting as bigint) as fees_reporting
from joined
