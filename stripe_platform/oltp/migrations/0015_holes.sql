-- Changes that were lost before they came to Kafka, and how far the connector's notices have been searched for that.

CREATE TABLE cdc.holes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    table_name text NOT NULL,
    cause text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE cdc.notices_read (
    is_only boolean PRIMARY KEY DEFAULT TRUE CHECK (is_only),
    topic_id text NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0)
);

ALTER TABLE cdc.snapshots ADD COLUMN hole bigint REFERENCES cdc.holes (number);

COMMENT ON TABLE cdc.holes IS
'Some changes of the table may be in no topic: a snapshot older than the hole does not count any more.';
COMMENT ON COLUMN cdc.holes.number IS 'In the order of commits: who adds one holds the table locked until the end.';
COMMENT ON COLUMN cdc.holes.id IS 'By this name the stores know that they have made up for it.';
COMMENT ON TABLE cdc.notices_read IS 'Starts of the connector without stored offsets are told there, and nowhere else.';
COMMENT ON COLUMN cdc.snapshots.hole IS 'The last hole of the table when the snapshot was requested; null: none.';
