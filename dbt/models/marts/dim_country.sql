select
    iso2,
    name,
    region,
    committed_at
from {{ ref('stg_countries') }}
