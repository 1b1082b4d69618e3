{{ config(meta={'dagster': {'ref': {'name': 'fact_refunds'}}}) }}
-- Fee and net of each refund are those of the ledger rows that name it as their source, to the cent, in the reporting
-- currency too.
{{ net_not_in_the_ledger(ref('fact_refunds'), 'refund_id', 'refund') }}
