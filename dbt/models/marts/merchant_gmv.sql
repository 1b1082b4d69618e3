{{ rebuilt_by_key(['month', 'merchant_id'], present='gmv is not null') }}
with touched as (
    {% call touched(ref('int_succeeded_charges'), ['month', 'merchant_id'], day='day', own_day='month') %}
    {{ ever_named('charges', utc_month('created') ~ ' as month, merchant_id') }}
    union all
    select month, merchant_id from {{ ref('int_succeeded_charges') }}
    where charge_id in ({{ charges_of_ledger_changed() }})
    union all
    {{ of_rates_changed(ref('int_succeeded_charges'), ['month', 'merchant_id']) }}
    union all
    select month, merchant_id from {{ ref('int_succeeded_charges') }}
    where charge_id in ({{ of_rates_changed(ref('fact_transactions'), ['charge_id']) }})
    {% endcall %}
),

charges as (
    select succeeded.*
    from {{ ref('int_succeeded_charges') }} as succeeded
    where {{ is_touched('succeeded', ['month', 'merchant_id']) }}
),

orders as (
    select
        month,
        merchant_id,
        currency,
        sum(amount_captured) as gmv,
        count(*) as charges,
        count(distinct customer_id) as active_customers,
        {{ sum_of_all('amount_captured_reporting') }} as gmv_reporting
    from charges
    group by month, merchant_id, currency
),

-- Each fee by the rate of the day on which it was taken: that of a dispute comes months after its charge.
fees_of_charges as (
    select
        charges.month,
        charges.merchant_id,
        charges.currency,
        case when ledger.currency = charges.currency then ledger.fee end as fee,
        ledger.fee_reporting
    from {{ ref('fact_transactions') }} as ledger
    inner join charges on ledger.charge_id = charges.charge_id
    where ledger.fee <> 0
),

fees as (
    select
        month,
        merchant_id,
        currency,
        {{ sum_of_all('fee') }} as fees,
        {{ sum_of_all('fee_reporting') }} as fees_reporting
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
    touched.month,
    touched.merchant_id,
    joined.currency,
    cast(joined.gmv as bigint) as gmv,
    cast(joined.charges as bigint) as charges,
    cast(joined.fees as bigint) as fees,
    cast(joined.fees_reporting as double) / nullif(joined.gmv_reporting, 0) as take_rate,
    cast(joined.active_customers as bigint) as active_customers,
    cast(joined.gmv as double) / joined.charges as average_order,
    cast(joined.gmv_reporting as bigint) as gmv_reporting,
    cast(joined.fees_reporting as bigint) as fees_reporting
from touched
left join joined on touched.month = joined.month and touched.merchant_id = joined.merchant_id
