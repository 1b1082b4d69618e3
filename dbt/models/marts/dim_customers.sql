with versions as (
    {{ versions('customers', key='id', is_deleted='deleted_at is not null', attributes=[
        'merchant_id', 'country', 'currency', 'balance', 'delinquent', 'livemode', 'created', 'deleted_at',
    ]) }}
)

select
    versions.version_id,
    versions.id as customer_id,
    versions.version,
    versions.valid_from,
    versions.valid_to,
    versions.is_current,
    versions.is_deleted,
    versions.merchant_id,
    versions.country,
    countries.name as country_name,
    countries.region,
    versions.currency,
    versions.balance,
    versions.delinquent,
    versions.livemode,
    versions.created,
    versions.deleted_at,
    versions.committed_at
from versions
left join {{ ref('stg_countries') }} as countries on versions.country = countries.iso2
