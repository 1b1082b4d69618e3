with versions as (
    {{ versions('merchants', key='id', attributes=[
        'business_name', 'business_type', 'type', 'mcc', 'country', 'default_currency', 'charges_enabled',
        'payouts_enabled', 'livemode', 'created',
    ]) }}
)

select
    versions.version_id,
    versions.id as merchant_id,
    versions.version,
    versions.valid_from,
    versions.valid_to,
    versions.is_current,
    versions.is_deleted,
    versions.business_name,
    versions.business_type,
    versions.type,
    versions.mcc,
    versions.country,
    countries.name as country_name,
    countries.region,
    versions.default_currency,
    versions.charges_enabled,
    versions.payouts_enabled,
    versions.livemode,
    versions.created,
    versions.committed_at
from versions
left join {{ ref('stg_countries') }} as countries on versions.country = countries.iso2
