{{ config(meta={'dagster': {'ref': {'name': 'fact_payouts'}}}) }}
-- Fee and net of each payout are those of the ledger rows that name it as their source, to the cent, in the reporting
-- currency too.
with ledger as (
    select
        source_id,
        sum(fee) as fee,
        sum(net) as net,
        {{ sum_of_all('fee_reporting') }} as fee_reporting,
        {{ sum_of_all('net_reporting') }} as net_reporting
    from {{ ref('fact_transactions') }}
    where source_type = 'payout'
    group by source_id
)

select payouts.payout_id
from {{ ref('fact_payouts') }} as payouts
left join ledger on payouts.payout_id = ledger.source_id
where
    payouts.fee <> coalesce(ledger.fee, 0)
    or payouts.net <> coalesce(ledger.net, 0)
    or payouts.fee_reporting is distinct from case when ledger.source_id is null then 0 else ledger.fee_reporting end
    or payouts.net_reporting is distinct from case when ledger.source_id is null then 0 else ledger.net_reporting end
