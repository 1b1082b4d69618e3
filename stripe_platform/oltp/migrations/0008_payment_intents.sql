-- How a payment comes about and how it is judged: intents, outcomes, reviews and early fraud warnings.

CREATE TABLE payments.payment_intents (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    merchant_id uuid NOT NULL REFERENCES payments.merchants (id),
    customer_id uuid REFERENCES payments.customers (id),
    payment_method_id uuid REFERENCES payments.payment_methods (id),
    invoice_id uuid REFERENCES payments.invoices (id),
    amount bigint NOT NULL CHECK (amount >= 0),
    amount_capturable bigint NOT NULL DEFAULT 0,
    amount_received bigint NOT NULL DEFAULT 0,
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    status text NOT NULL CHECK (
        status IN (
            'requires_payment_method', 'requires_confirmation', 'requires_action', 'processing', 'requires_capture',
            'canceled', 'succeeded'
        )
    ),
    capture_method text NOT NULL DEFAULT 'automatic' CHECK (
        capture_method IN ('automatic', 'automatic_async', 'manual')
    ),
    confirmation_method text NOT NULL DEFAULT 'automatic' CHECK (confirmation_method IN ('automatic', 'manual')),
    cancellation_reason text CHECK (
        cancellation_reason IN (
            'abandoned', 'automatic', 'duplicate', 'expired', 'failed_invoice', 'fraudulent',
            'requested_by_customer', 'void_invoice'
        )
    ),
    setup_future_usage text CHECK (setup_future_usage IN ('on_session', 'off_session')),
    idempotency_key text,
    latest_charge_id uuid,
    latest_charge_created timestamptz,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, idempotency_key),
    -- A charge names its intent and the intent its latest charge: whichever comes first waits for the other.
    FOREIGN KEY (latest_charge_id, latest_charge_created) REFERENCES payments.charges (id, created) MATCH FULL
    DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT received_within_amount CHECK (amount_received BETWEEN 0 AND amount),
    CONSTRAINT capturable_within_amount CHECK (amount_capturable BETWEEN 0 AND amount),
    CONSTRAINT capturable_awaits_capture CHECK (amount_capturable = 0 OR status = 'requires_capture'),
    CONSTRAINT only_a_success_has_received CHECK (amount_received = 0 OR status = 'succeeded'),
    CONSTRAINT canceled_has_the_reason CHECK (cancellation_reason IS NULL OR status = 'canceled')
);
CREATE INDEX payment_intents_by_merchant ON payments.payment_intents (merchant_id, created DESC);
CREATE INDEX payment_intents_by_customer
ON payments.payment_intents (customer_id, created DESC) WHERE customer_id IS NOT NULL;
CREATE INDEX payment_intents_by_invoice ON payments.payment_intents (invoice_id) WHERE invoice_id IS NOT NULL;
-- What waits for somebody, the oldest first: for reminders and expiry.
CREATE INDEX payment_intents_that_wait ON payments.payment_intents (created)
WHERE status IN ('requires_payment_method', 'requires_confirmation', 'requires_action', 'requires_capture');

ALTER TABLE payments.charges ADD COLUMN payment_intent_id uuid REFERENCES payments.payment_intents (id);
ALTER TABLE payments.charges ADD COLUMN three_d_secure_result text CHECK (
    three_d_secure_result IN (
        'authenticated', 'attempt_acknowledged', 'exempted', 'failed', 'not_supported', 'processing_error'
    )
);
-- The tries of one intent.
CREATE INDEX charges_by_payment_intent
ON payments.charges (payment_intent_id) WHERE payment_intent_id IS NOT NULL;
-- A merchant finds a payment by their own order number.
CREATE INDEX charges_by_metadata ON payments.charges USING gin (metadata jsonb_path_ops);

CREATE TABLE payments.charge_outcomes (
    charge_id uuid NOT NULL,
    charge_created timestamptz NOT NULL,
    type text NOT NULL CHECK (type IN ('authorized', 'manual_review', 'issuer_declined', 'blocked', 'invalid')),
    network_status text NOT NULL CHECK (
        network_status IN (
            'approved_by_network', 'declined_by_network', 'not_sent_to_network', 'reversed_after_approval'
        )
    ),
    reason text,
    risk_level text NOT NULL CHECK (
        risk_level IN ('normal', 'elevated', 'highest', 'not_assessed', 'unknown')
    ),
    risk_score smallint CHECK (risk_score BETWEEN 0 AND 99),
    rule_id text,
    seller_message text,
    model_version text,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (charge_id, charge_created),
    FOREIGN KEY (charge_id, charge_created) REFERENCES payments.charges (id, created),
    CONSTRAINT blocked_was_not_sent CHECK (type <> 'blocked' OR network_status = 'not_sent_to_network')
);

CREATE TABLE payments.reviews (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    charge_id uuid NOT NULL,
    charge_created timestamptz NOT NULL,
    open boolean NOT NULL DEFAULT TRUE,
    opened_reason text NOT NULL CHECK (opened_reason IN ('rule', 'manual')),
    closed_reason text CHECK (
        closed_reason IN ('approved', 'refunded', 'refunded_as_fraud', 'disputed', 'redacted')
    ),
    ip inet,
    closed_at timestamptz,
    livemode boolean NOT NULL DEFAULT FALSE,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (charge_id, charge_created) REFERENCES payments.charges (id, created),
    CONSTRAINT closed_has_reason_and_time CHECK (
        open = (closed_reason IS NULL) AND open = (closed_at IS NULL)
    )
);
CREATE INDEX reviews_by_charge ON payments.reviews (charge_id, charge_created);
-- The reviewers' queue.
CREATE INDEX reviews_that_are_open ON payments.reviews (created) WHERE open;

-- A card network's report that a payment was fraudulent; it often comes before a dispute, or without one.
CREATE TABLE payments.early_fraud_warnings (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    charge_id uuid NOT NULL,
    charge_created timestamptz NOT NULL,
    fraud_type text NOT NULL CHECK (
        fraud_type IN (
            'card_never_received', 'fraudulent_card_application', 'made_with_counterfeit_card',
            'made_with_lost_card', 'made_with_stolen_card', 'misc', 'unauthorized_use_of_card'
        )
    ),
    actionable boolean NOT NULL DEFAULT TRUE,
    livemode boolean NOT NULL DEFAULT FALSE,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (charge_id, charge_created) REFERENCES payments.charges (id, created)
);
CREATE INDEX early_fraud_warnings_by_charge ON payments.early_fraud_warnings (charge_id, charge_created);

CALL payments.guard('payments.payment_intents', 'id', 'created', 'merchant_id', 'currency');
CALL payments.guard('payments.charge_outcomes', 'charge_id', 'charge_created', 'created');
CALL payments.guard('payments.reviews', 'id', 'created', 'charge_id', 'charge_created');
CALL payments.guard('payments.early_fraud_warnings', 'id', 'created', 'charge_id', 'charge_created');

COMMENT ON COLUMN payments.payment_intents.amount IS 'Minor units of currency.';
COMMENT ON COLUMN payments.payment_intents.amount_received IS 'Minor units of currency, captured by its charges.';
COMMENT ON COLUMN payments.payment_intents.idempotency_key
IS 'The merchant''s own key of the request: the same key, the same intent.';
COMMENT ON COLUMN payments.charges.three_d_secure_result
IS 'How the card holder''s authentication (3D Secure) ended; null: it was not tried.';
COMMENT ON COLUMN payments.charge_outcomes.risk_score IS '0 to 99; from 65 elevated, from 75 highest.';
COMMENT ON COLUMN payments.charge_outcomes.seller_message IS 'For the merchant, in words.';
COMMENT ON COLUMN payments.early_fraud_warnings.actionable
IS 'Neither refunded nor disputed yet: a refund avoids a dispute.';
