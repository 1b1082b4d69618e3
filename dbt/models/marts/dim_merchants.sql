select
    merchants.merchant_id,
    merchants.business_name,
    merchants.business_type,
    merchants.type,
    merchants.mcc,
    merchants.country,
    countries.name as country_name,
    countries.region,
    merchants.default_currency,
    merchants.charges_enabled,
    merchants.payouts_enabled,
    merchants.livemode,
    merchants.created,
    merchants.committed_at
from {{ ref('stg_merchants') }} as merchants
left join {{ ref('stg_countries') }} as countries on merchants.country = countries.iso2
