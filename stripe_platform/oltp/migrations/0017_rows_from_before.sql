-- Rows that were written before what is asked of them now; others go on reading and writing meanwhile.

-- The withdrawals of imported disputes, which the import has not linked so far.
INSERT INTO payments.dispute_balance_transactions
(dispute_id, kind, balance_transaction_id, balance_transaction_created, created)
SELECT
    dispute.id AS dispute_id,
    'withdrawn' AS kind,
    movement.id AS balance_transaction_id,
    movement.created AS balance_transaction_created,
    movement.created
FROM payments.disputes AS dispute
INNER JOIN payments.imported_payments AS imported
    ON dispute.charge_id = imported.charge_id AND dispute.charge_created = imported.charge_created
INNER JOIN payments.balance_transactions AS movement
    ON
        dispute.id = movement.source_id
        AND movement.source_type = 'dispute'
        AND movement.reporting_category = 'dispute'
ON CONFLICT (dispute_id, kind) DO NOTHING;

-- The constraints of 0016 hold for all rows: each table is read once.
DO $$
DECLARE
    described record;
BEGIN
    FOR described IN
        SELECT
            conrelid::regclass AS relation,
            string_agg(format('VALIDATE CONSTRAINT %I', conname), ', ' ORDER BY conname) AS validations
        FROM pg_constraint
        WHERE connamespace = 'payments'::regnamespace AND contype = 'c' AND NOT convalidated AND coninhcount = 0
        GROUP BY conrelid
    LOOP
        EXECUTE format('ALTER TABLE %s %s', described.relation, described.validations);
    END LOOP;
END
$$;
