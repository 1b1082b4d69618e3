-- Partitions past their table's retention: kept to be read, out of the change stream's sight. A detach is not an event
-- of the stream, so this says which rows left on purpose.

CREATE SCHEMA archive;

CREATE TABLE archive.detached_partitions (
    name text PRIMARY KEY,
    table_name text NOT NULL,
    first_created timestamptz NOT NULL,
    created_before timestamptz NOT NULL,
    row_count bigint NOT NULL CHECK (row_count >= 0),
    detached_at timestamptz NOT NULL DEFAULT now(),
    CHECK (first_created < created_before)
);

COMMENT ON TABLE archive.detached_partitions IS 'One row for each partition that was detached from its table.';
COMMENT ON COLUMN archive.detached_partitions.name IS 'The table in schema archive that the partition has become.';
COMMENT ON COLUMN archive.detached_partitions.table_name IS 'The table in schema payments that it was a partition of.';
COMMENT ON COLUMN archive.detached_partitions.first_created IS 'Its rows were created at this moment or later.';
COMMENT ON COLUMN archive.detached_partitions.created_before IS 'Its rows were created before this moment.';
