-- Snapshots of captured tables: how the connector is asked for one, and which table was taken into which topic.

CREATE SCHEMA cdc;

-- Debezium's form: these three columns in this order. Requests stay, one row each; the connector itself inserts and
-- deletes the rows that mark the bounds of its chunks in the log. Published, for the connector reads it from there.
CREATE TABLE cdc.signals (
    id text PRIMARY KEY,
    type text NOT NULL,
    data text
);

CREATE TABLE cdc.snapshots (
    signal_id text NOT NULL REFERENCES cdc.signals (id),
    table_name text NOT NULL,
    topic_id text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    rows bigint,
    failure text,
    PRIMARY KEY (signal_id, table_name),
    CONSTRAINT completed_or_failed CHECK (completed_at IS NULL OR failure IS NULL),
    CONSTRAINT rows_of_a_completed_one CHECK ((completed_at IS NULL) = (rows IS NULL))
);

COMMENT ON TABLE cdc.snapshots IS
'A captured table needs a snapshot while none is completed into the topic that has its name now.';
COMMENT ON COLUMN cdc.snapshots.topic_id IS 'Kafka''s id of the topic: a topic made anew has another.';
COMMENT ON COLUMN cdc.snapshots.rows IS 'As the connector counted them since it last started.';
COMMENT ON COLUMN cdc.snapshots.failure IS 'Why this one will never be completed; a new one has to be requested.';
