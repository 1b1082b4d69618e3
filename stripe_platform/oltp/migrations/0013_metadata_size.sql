-- A change record above the broker's 10 MB stops the connector, and with it the change stream of every table: a row
-- is small by its schema. The length of the text counts, for a record carries the text; the stored value may be
-- compressed.
DO $$
DECLARE
    described regclass;
BEGIN
    FOR described IN
        SELECT attribute.attrelid::regclass
        FROM pg_attribute AS attribute
        INNER JOIN pg_class AS relation ON relation.oid = attribute.attrelid
        WHERE relation.relnamespace = 'payments'::regnamespace AND relation.relkind IN ('r', 'p')
            AND NOT relation.relispartition AND attribute.attname = 'metadata' AND NOT attribute.attisdropped
    LOOP
        EXECUTE format(
            'ALTER TABLE %s ADD CONSTRAINT metadata_is_small CHECK (octet_length(metadata::text) <= 65536)', described
        );
    END LOOP;
END
$$;
