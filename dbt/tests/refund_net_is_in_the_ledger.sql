{{ config(meta={'dagster': {'ref': {'name': 'fact_refunds'}}}) }}
-- Fee and net of each refund are those of the ledger rows that name it as their source, to the cent.
with ledger as (
    select
        source_id,
        sum(fee) as fee,
        sum(net) as net
    from {{ ref('fact_transactions') }}
    where source_type = 'refund'
    group by source_id
)

select refunds.refund_id
from {{ ref('fact_refunds') }} as refunds
left join ledger on refunds.refund_id = ledger.source_id
where refunds.fee <> coalesce(ledger.fee, 0) or refunds.net <> coalesce(ledger.net, 0)
