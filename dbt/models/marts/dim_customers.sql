select
    customers.customer_id,
    customers.merchant_id,
    customers.country,
    countries.name as country_name,
    countries.region,
    customers.currency,
    customers.balance,
    customers.delinquent,
    customers.livemode,
    customers.created,
    customers.deleted_at,
    customers.deleted_at is not null as is_deleted,
    customers.committed_at
from {{ ref('stg_customers') }} as customers
left join {{ ref('stg_countries') }} as countries on customers.country = countries.iso2
