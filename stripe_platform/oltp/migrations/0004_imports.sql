-- What the importer has taken in. Not captured: these rows say where payments came from, not what they are.

CREATE TABLE payments.imported_payments (
    payment_ref text PRIMARY KEY,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    charge_id uuid NOT NULL,
    charge_created timestamptz NOT NULL,
    imported_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE payments.imported_parties (
    kind text NOT NULL CHECK (kind IN ('merchant', 'customer', 'payment_method')),
    ref text NOT NULL,
    id uuid NOT NULL,
    PRIMARY KEY (kind, ref)
);

COMMENT ON COLUMN payments.imported_payments.content_hash
IS 'SHA-256 of the row: the same reference with other content is refused.';
