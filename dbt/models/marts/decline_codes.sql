{{ rebuilt_by_key(['day', 'merchant_id'], present='declined is not null') }}
-- The issuer's code says more than the charge's own: of most declines that is card_declined.
with touched as (
    {% call touched(ref('fact_charges'), ['day', 'merchant_id'], only="status = 'failed'", day='day') %}
    {{ ever_named('charges', utc_day('created') ~ ' as day, merchant_id') }}
    union all
    select day, merchant_id from {{ ref('fact_charges') }}
    where payment_method_id in ({{ payment_methods_changed() }})
    {% endcall %}
),

counted as (
    select
        charges.day,
        charges.card_brand,
        charges.card_country,
        charges.merchant_id,
        coalesce(charges.decline_code, charges.failure_code) as decline_code,
        count(*) as declined
    from {{ ref('fact_charges') }} as charges
    where
        charges.status = 'failed'
        and {{ is_touched('charges', ['day', 'merchant_id']) }}
    group by
        charges.day,
        charges.card_brand,
        charges.card_country,
        charges.merchant_id,
        coalesce(charges.decline_code, charges.failure_code)
)

select
    touched.day,
    counted.card_brand,
    counted.card_country,
    touched.merchant_id,
    counted.decline_code,
    cast(counted.declined as bigint) as declined
from touched
left join counted on touched.day = counted.day and touched.merchant_id = counted.merchant_id
