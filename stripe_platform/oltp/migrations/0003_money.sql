-- Money: charges, the ledger of balance transactions, refunds and disputes. Amounts are minor units.

CREATE TABLE payments.charges (
    id uuid NOT NULL DEFAULT payments.uuid_v7(),
    merchant_id uuid NOT NULL REFERENCES payments.merchants (id),
    customer_id uuid REFERENCES payments.customers (id),
    payment_method_id uuid REFERENCES payments.payment_methods (id),
    amount bigint NOT NULL CHECK (amount >= 0),
    amount_captured bigint NOT NULL DEFAULT 0,
    amount_refunded bigint NOT NULL DEFAULT 0,
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    status text NOT NULL CHECK (status IN ('succeeded', 'pending', 'failed')),
    captured boolean NOT NULL DEFAULT FALSE,
    paid boolean NOT NULL DEFAULT FALSE,
    refunded boolean NOT NULL DEFAULT FALSE,
    disputed boolean NOT NULL DEFAULT FALSE,
    failure_code text,
    decline_code text,
    description text,
    statement_descriptor text CHECK (length(statement_descriptor) <= 22),
    ip inet,
    device_id text,
    shipping_country char(2) REFERENCES payments.countries (iso2),
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, created),
    CONSTRAINT captured_within_amount CHECK (amount_captured BETWEEN 0 AND amount),
    CONSTRAINT refunded_within_captured CHECK (amount_refunded BETWEEN 0 AND amount_captured),
    CONSTRAINT refunded_means_in_full CHECK (refunded = (amount_captured > 0 AND amount_refunded = amount_captured)),
    CONSTRAINT captured_amount_needs_capture CHECK (captured OR amount_captured = 0),
    CONSTRAINT only_a_success_is_captured CHECK (status = 'succeeded' OR amount_captured = 0),
    CONSTRAINT paid_means_succeeded CHECK (paid = (status = 'succeeded')),
    CONSTRAINT failure_has_a_code CHECK ((status = 'failed') = (failure_code IS NOT NULL)),
    CONSTRAINT decline_is_a_failure CHECK (decline_code IS NULL OR status = 'failed')
) PARTITION BY RANGE (created);
CREATE TABLE payments.charges_default PARTITION OF payments.charges DEFAULT;
-- The lists of a merchant, a customer and a card, newest first.
CREATE INDEX charges_by_merchant ON payments.charges (merchant_id, created DESC);
CREATE INDEX charges_by_customer ON payments.charges (customer_id, created DESC) WHERE customer_id IS NOT NULL;
CREATE INDEX charges_by_payment_method
ON payments.charges (payment_method_id, created DESC) WHERE payment_method_id IS NOT NULL;

-- Every movement of a merchant's balance, one row each; `net` is what the balance changes by.
CREATE TABLE payments.balance_transactions (
    id uuid NOT NULL DEFAULT payments.uuid_v7(),
    merchant_id uuid NOT NULL REFERENCES payments.merchants (id),
    amount bigint NOT NULL,
    fee bigint NOT NULL DEFAULT 0,
    net bigint NOT NULL,
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    exchange_rate numeric(20, 10) CHECK (exchange_rate > 0),
    type text NOT NULL CHECK (
        type IN (
            'charge', 'payment', 'refund', 'payment_refund', 'refund_failure', 'adjustment', 'payout',
            'payout_failure', 'payout_cancel', 'stripe_fee', 'application_fee', 'transfer', 'topup',
            'reserve_transaction'
        )
    ),
    reporting_category text NOT NULL CHECK (
        reporting_category IN (
            'charge', 'refund', 'refund_failure', 'dispute', 'dispute_reversal', 'other_adjustment', 'payout',
            'payout_reversal', 'fee', 'platform_earning', 'transfer', 'topup', 'risk_reserved_funds'
        )
    ),
    status text NOT NULL CHECK (status IN ('available', 'pending')),
    available_on timestamptz NOT NULL,
    source_type text CHECK (source_type IN ('charge', 'refund', 'dispute', 'payout', 'transfer', 'topup', 'fee')),
    source_id uuid,
    description text,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, created),
    CONSTRAINT net_is_amount_less_fee CHECK (net = amount - fee),
    CONSTRAINT a_charge_adds CHECK (type NOT IN ('charge', 'payment') OR amount >= 0),
    CONSTRAINT a_refund_takes CHECK (type NOT IN ('refund', 'payment_refund') OR amount <= 0),
    CONSTRAINT source_has_type_and_id CHECK ((source_type IS NULL) = (source_id IS NULL)),
    CONSTRAINT not_available_before_created CHECK (available_on >= created)
) PARTITION BY RANGE (created);
CREATE TABLE payments.balance_transactions_default PARTITION OF payments.balance_transactions DEFAULT;
-- A merchant's ledger, and the movements of one charge, refund or dispute.
CREATE INDEX balance_transactions_by_merchant ON payments.balance_transactions (merchant_id, created DESC);
CREATE INDEX balance_transactions_by_source
ON payments.balance_transactions (source_id) WHERE source_id IS NOT NULL;

CREATE TABLE payments.refunds (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    charge_id uuid NOT NULL,
    charge_created timestamptz NOT NULL,
    balance_transaction_id uuid,
    balance_transaction_created timestamptz,
    amount bigint NOT NULL CHECK (amount > 0),
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    status text NOT NULL CHECK (status IN ('pending', 'requires_action', 'succeeded', 'failed', 'canceled')),
    reason text CHECK (reason IN ('duplicate', 'fraudulent', 'requested_by_customer', 'expired_uncaptured_charge')),
    failure_reason text,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (charge_id, charge_created) REFERENCES payments.charges (id, created),
    FOREIGN KEY (balance_transaction_id, balance_transaction_created)
    REFERENCES payments.balance_transactions (id, created) MATCH FULL,
    CONSTRAINT failure_has_a_reason CHECK (failure_reason IS NULL OR status = 'failed')
);
CREATE INDEX refunds_by_charge ON payments.refunds (charge_id, charge_created);

CREATE TABLE payments.disputes (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    charge_id uuid NOT NULL,
    charge_created timestamptz NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    status text NOT NULL CHECK (
        status IN (
            'warning_needs_response', 'warning_under_review', 'warning_closed', 'needs_response', 'under_review',
            'appeal_needs_response', 'appeal_under_review', 'won', 'lost', 'prevented'
        )
    ),
    reason text NOT NULL CHECK (
        reason IN (
            'bank_cannot_process', 'check_returned', 'credit_not_processed', 'customer_initiated',
            'debit_not_authorized', 'duplicate', 'fraudulent', 'general', 'incorrect_account_details',
            'insufficient_funds', 'noncompliant', 'product_not_received', 'product_unacceptable',
            'subscription_canceled', 'unrecognized'
        )
    ),
    network_reason_code text,
    is_charge_refundable boolean NOT NULL DEFAULT FALSE,
    evidence_due_by timestamptz,
    evidence_submitted_at timestamptz,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (charge_id, charge_created) REFERENCES payments.charges (id, created)
);
CREATE INDEX disputes_by_charge ON payments.disputes (charge_id, charge_created);

CALL payments.guard('payments.charges', 'id', 'created');
CALL payments.guard('payments.balance_transactions', 'id', 'created');
CALL payments.guard_against_truncate('payments.charges_default');
CALL payments.guard_against_truncate('payments.balance_transactions_default');
CALL payments.guard('payments.refunds', 'id', 'created', 'charge_id', 'charge_created', 'currency');
CALL payments.guard('payments.disputes', 'id', 'created', 'charge_id', 'charge_created', 'currency');

-- The charge is locked first: two refunds of one charge at once would each see only themselves. Not FOR UPDATE: each
-- has already locked the key by its foreign key, and the two would wait for one another.
CREATE FUNCTION payments.carry_refunds_to_charge() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    refund payments.refunds := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    charge_currency char(3);
BEGIN
    SELECT currency INTO charge_currency FROM payments.charges
    WHERE id = refund.charge_id AND created = refund.charge_created FOR NO KEY UPDATE;
    IF charge_currency <> refund.currency THEN
        RAISE EXCEPTION 'refund % is in another currency than its charge', refund.id
            USING ERRCODE = 'check_violation', HINT = 'refund in the currency of the charge';
    END IF;
    UPDATE payments.charges AS charge
    SET amount_refunded = total.amount,
        refunded = charge.amount_captured > 0 AND total.amount = charge.amount_captured
    FROM (
        SELECT coalesce(sum(amount), 0) AS amount FROM payments.refunds
        WHERE charge_id = refund.charge_id AND charge_created = refund.charge_created
            AND status NOT IN ('failed', 'canceled')
    ) AS total
    WHERE charge.id = refund.charge_id AND charge.created = refund.charge_created
        AND charge.amount_refunded <> total.amount;
    RETURN NULL;
END
$$;
CREATE TRIGGER carry_refunds_to_charge AFTER INSERT OR UPDATE OR DELETE ON payments.refunds
FOR EACH ROW EXECUTE FUNCTION payments.carry_refunds_to_charge();

CREATE FUNCTION payments.carry_disputes_to_charge() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    dispute payments.disputes := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    charge payments.charges;
    is_disputed boolean;
BEGIN
    SELECT * INTO charge FROM payments.charges
    WHERE id = dispute.charge_id AND created = dispute.charge_created FOR NO KEY UPDATE;
    IF charge.currency <> dispute.currency OR dispute.amount > charge.amount THEN
        RAISE EXCEPTION 'dispute % exceeds its charge or is in another currency', dispute.id
            USING ERRCODE = 'check_violation', HINT = 'dispute at most the amount of the charge, in its currency';
    END IF;
    SELECT EXISTS (
        SELECT FROM payments.disputes
        WHERE charge_id = dispute.charge_id AND charge_created = dispute.charge_created
    ) INTO is_disputed;
    UPDATE payments.charges SET disputed = is_disputed
    WHERE id = dispute.charge_id AND created = dispute.charge_created AND disputed <> is_disputed;
    RETURN NULL;
END
$$;
CREATE TRIGGER carry_disputes_to_charge AFTER INSERT OR UPDATE OR DELETE ON payments.disputes
FOR EACH ROW EXECUTE FUNCTION payments.carry_disputes_to_charge();

COMMENT ON COLUMN payments.charges.amount IS 'Minor units of currency.';
COMMENT ON COLUMN payments.charges.amount_captured IS 'Minor units of currency, at most amount.';
COMMENT ON COLUMN payments.charges.amount_refunded
IS 'Sum of the refunds that neither failed nor were canceled; kept by the trigger on refunds.';
COMMENT ON COLUMN payments.charges.refunded IS 'All that was captured has been refunded.';
COMMENT ON COLUMN payments.charges.disputed
IS 'A dispute of this charge exists; kept by the trigger on disputes.';
COMMENT ON COLUMN payments.balance_transactions.amount
IS 'Minor units of currency; negative when the balance falls.';
COMMENT ON COLUMN payments.balance_transactions.fee IS 'Minor units of currency, taken off amount.';
COMMENT ON COLUMN payments.balance_transactions.net IS 'amount - fee: what the balance changes by.';
COMMENT ON COLUMN payments.balance_transactions.exchange_rate
IS 'Presentment to settlement currency; null when they are the same.';
COMMENT ON COLUMN payments.balance_transactions.available_on IS 'When the money can be paid out.';
COMMENT ON COLUMN payments.refunds.amount IS 'Minor units of currency, that of the charge.';
COMMENT ON COLUMN payments.disputes.amount IS 'Minor units of currency, that of the charge.';
