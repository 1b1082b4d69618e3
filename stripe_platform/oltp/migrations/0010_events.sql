-- The outbox: what happened, for webhooks. Payloads hold ids and amounts only.

CREATE TABLE payments.events (
    id uuid NOT NULL DEFAULT payments.uuid_v7(),
    merchant_id uuid REFERENCES payments.merchants (id),
    type text NOT NULL CHECK (type ~ '^[a-z_]+(\.[a-z_]+)+$'),
    object_type text NOT NULL,
    object_id uuid NOT NULL,
    api_version text NOT NULL,
    payload jsonb NOT NULL CHECK (jsonb_typeof(payload) = 'object' AND octet_length(payload::text) <= 65536),
    request_id text,
    idempotency_key text,
    livemode boolean NOT NULL DEFAULT FALSE,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, created)
) PARTITION BY RANGE (created);
CREATE TABLE payments.events_default PARTITION OF payments.events DEFAULT;
-- The history of one object.
CREATE INDEX events_by_object ON payments.events (object_id, created DESC);
-- A stretch of time is read whole, for delivery again: rows lie in the order of their time, so a summary per block
-- of pages finds them, at a thousandth of a tree's size. Full pages are summarized at once, not by the next vacuum.
CREATE INDEX events_by_time ON payments.events USING brin (created)
WITH (pages_per_range = 32, autosummarize = on);

CALL payments.guard('payments.events', 'id', 'created', 'type', 'object_type', 'object_id', 'payload');
CALL payments.guard_against_truncate('payments.events_default');

COMMENT ON COLUMN payments.events.type IS 'Stripe''s name of what happened: charge.succeeded, payout.paid, ….';
COMMENT ON COLUMN payments.events.payload IS 'Ids, amounts and states; never what would name a person.';
