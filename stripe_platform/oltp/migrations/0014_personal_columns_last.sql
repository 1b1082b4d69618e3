-- Personal columns behind all others. Debezium matches the values of a streamed change with the table's columns by
-- their place, and takes the table's columns from the catalog when it begins an incremental snapshot: the places agree
-- only where the columns that are not published are the last ones.
SET LOCAL session_replication_role = replica;
DO $$
DECLARE
    personal record;
BEGIN
    FOR personal IN
        SELECT moved.*, format_type(attribute.atttypid, attribute.atttypmod) AS type
        FROM (VALUES
            ('payments.customers'::regclass, 'email'::name, 1),
            ('payments.customers', 'name', 2),
            ('payments.customers', 'phone', 3),
            ('payments.charges', 'ip', 1),
            ('payments.charges', 'device_id', 2),
            ('payments.addresses', 'line1', 1),
            ('payments.addresses', 'city', 2),
            ('payments.addresses', 'postal_code', 3),
            ('payments.reviews', 'ip', 1)
        ) AS moved (relation, name, place)
        INNER JOIN pg_attribute AS attribute ON attribute.attrelid = moved.relation AND attribute.attname = moved.name
        ORDER BY moved.relation, moved.place
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO moved', personal.relation, personal.name);
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', personal.relation, personal.name, personal.type);
        EXECUTE format(
            'UPDATE %s SET %I = moved WHERE moved IS NOT NULL', personal.relation, personal.name
        );
        EXECUTE format('ALTER TABLE %s DROP COLUMN moved', personal.relation);
    END LOOP;
END
$$;
