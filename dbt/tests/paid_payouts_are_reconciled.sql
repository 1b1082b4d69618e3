{{ config(meta={'dagster': {'ref': {'name': 'payout_reconciliation'}}}) }}
-- A paid payout is the net of the ledger rows that it paid out. A payout committed while the cut was being made may be
-- in it without all of them; one that was asked for as an amount is made of none.
select payout_id
from {{ ref('payout_reconciliation') }}
where
    status = 'paid'
    and reconciliation_status <> 'not_applicable'
    and (difference <> 0 or foreign_movements <> 0)
    and committed_at < {{ cut_made_at() }}
