with versions as (
    {{ versions('card_fingerprints', key='fingerprint', attributes=[
        'brand', 'funding', 'issuer_country', 'bin6', 'last4', 'created',
    ]) }}
)

select
    versions.version_id,
    versions.fingerprint as card_id,
    versions.version,
    versions.valid_from,
    versions.valid_to,
    versions.is_current,
    versions.is_deleted,
    versions.brand,
    versions.funding,
    versions.issuer_country,
    countries.name as issuer_country_name,
    countries.region as issuer_region,
    versions.bin6,
    versions.last4,
    versions.created,
    versions.committed_at
from versions
left join {{ ref('stg_countries') }} as countries on versions.issuer_country = countries.iso2
