select
    code,
    name,
    exponent,
    cast(power(10, exponent) as integer) as minor_units,
    charge_multiple,
    payout_multiple,
    committed_at
from {{ ref('stg_currencies') }}
