{{ config(meta={'dagster': {'ref': {'name': 'fact_disputes'}}}) }}
-- The ledger rows that a dispute is linked to are those that name it as their source. A transaction committed while the
-- cut was being made may be in it in part, so a dispute counts only if all its ledger rows were committed before.
with ledger as (
    {{ ledger_of('dispute') }}
    having max(committed_at) < {{ cut_made_at() }}
)

select disputes.dispute_id
from {{ ref('fact_disputes') }} as disputes
inner join ledger on disputes.dispute_id = ledger.source_id
where
    disputes.fee <> ledger.fee
    or disputes.net <> ledger.net
    or disputes.net <> disputes.reinstated - disputes.withdrawn - disputes.fee
    or disputes.fee_reporting is distinct from ledger.fee_reporting
    or disputes.net_reporting is distinct from ledger.net_reporting
    or disputes.net_reporting is distinct from
    disputes.reinstated_reporting - disputes.withdrawn_reporting - disputes.fee_reporting
