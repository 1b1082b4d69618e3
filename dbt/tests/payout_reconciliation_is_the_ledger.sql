{{ config(meta={'dagster': {'ref': {'name': 'payout_reconciliation'}}}) }}
-- Each payout has the ledger rows that name it, each once, but for its own; in the reporting currency too.
with ledger as (
    select
        payout_id,
        count(*) as movements,
        sum(net) as net,
        {{ sum_of_all('net_reporting') }} as net_reporting
    from {{ ref('fact_transactions') }}
    where source_id is distinct from payout_id
    group by payout_id
)

select reconciled.payout_id
from {{ ref('payout_reconciliation') }} as reconciled
left join ledger on reconciled.payout_id = ledger.payout_id
where
    reconciled.movements is distinct from coalesce(ledger.movements, 0)
    or (reconciled.foreign_movements = 0 and reconciled.net <> coalesce(ledger.net, 0))
    or (
        reconciled.foreign_movements = 0
        and reconciled.net_reporting is distinct from
        case when ledger.payout_id is null then 0 else ledger.net_reporting end
    )
