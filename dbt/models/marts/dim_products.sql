with versions as (
    {{ versions('products', key='id', attributes=[
        'merchant_id', 'name', 'active', 'tax_code', 'livemode', 'created',
    ]) }}
)

select
    version_id,
    id as product_id,
    version,
    valid_from,
    valid_to,
    is_current,
    is_deleted,
    merchant_id,
    name,
    active,
    tax_code,
    livemode,
    created,
    committed_at
from versions
