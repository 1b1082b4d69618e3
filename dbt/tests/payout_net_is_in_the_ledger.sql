{{ config(meta={'dagster': {'ref': {'name': 'fact_payouts'}}}) }}
-- Fee and net of each payout are those of the ledger rows that name it as their source, to the cent, in the reporting
-- currency too.
{{ net_not_in_the_ledger(ref('fact_payouts'), 'payout_id', 'payout') }}
