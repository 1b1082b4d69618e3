-- What the simulator has written. Not captured: these rows say where payments came from, not what they are.

CREATE TABLE payments.simulations (
    seed bigint NOT NULL CHECK (seed >= 0),
    payments integer NOT NULL CHECK (payments > 0),
    days integer NOT NULL CHECK (days > 0),
    until date NOT NULL,
    batches integer NOT NULL CHECK (batches > 0),
    batches_done integer NOT NULL DEFAULT 0 CHECK (batches_done BETWEEN 0 AND batches),
    started_at timestamptz NOT NULL DEFAULT now(),
    last_batch_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (seed, payments, days, until)
);

COMMENT ON COLUMN payments.simulations.until IS 'The history ends where this day, in UTC, begins.';
COMMENT ON COLUMN payments.simulations.batches_done
IS 'Counted in the transaction that writes the batch: the next one to write.';
