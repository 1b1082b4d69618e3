-- The constraints of 0017 hold for the rows that were there before them. Each table is read once, and others go on
-- reading and writing it meanwhile.
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
