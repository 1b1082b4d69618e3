-- How the money leaves: payouts, what fees are made of, and the ledger rows of disputes.

CREATE TABLE payments.payouts (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    merchant_id uuid NOT NULL REFERENCES payments.merchants (id),
    balance_transaction_id uuid,
    balance_transaction_created timestamptz,
    amount bigint NOT NULL CHECK (amount > 0),
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    status text NOT NULL CHECK (status IN ('pending', 'in_transit', 'paid', 'failed', 'canceled')),
    method text NOT NULL DEFAULT 'standard' CHECK (method IN ('standard', 'instant')),
    type text NOT NULL DEFAULT 'bank_account' CHECK (type IN ('bank_account', 'card')),
    arrival_date date NOT NULL,
    automatic boolean NOT NULL DEFAULT TRUE,
    failure_code text,
    reconciliation_status text NOT NULL DEFAULT 'in_progress' CHECK (
        reconciliation_status IN ('completed', 'in_progress', 'not_applicable')
    ),
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    -- The payout's own ledger row and the payout name one another.
    FOREIGN KEY (balance_transaction_id, balance_transaction_created)
    REFERENCES payments.balance_transactions (id, created) MATCH FULL DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT failure_has_a_code CHECK ((status = 'failed') = (failure_code IS NOT NULL))
);
CREATE INDEX payouts_by_merchant ON payments.payouts (merchant_id, created DESC);
-- What the bank has still to confirm.
CREATE INDEX payouts_on_their_way ON payments.payouts (arrival_date) WHERE status IN ('pending', 'in_transit');

-- Which payout paid the movement out: a payout's amount is the sum of the net of its movements.
ALTER TABLE payments.balance_transactions ADD COLUMN payout_id uuid REFERENCES payments.payouts (id);
CREATE INDEX balance_transactions_by_payout
ON payments.balance_transactions (payout_id) WHERE payout_id IS NOT NULL;
-- What the next payout of a merchant takes.
CREATE INDEX balance_transactions_to_pay_out
ON payments.balance_transactions (merchant_id, currency, available_on) WHERE payout_id IS NULL;

CREATE TABLE payments.fee_details (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    balance_transaction_id uuid NOT NULL,
    balance_transaction_created timestamptz NOT NULL,
    amount bigint NOT NULL,
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    type text NOT NULL CHECK (type IN ('stripe_fee', 'application_fee', 'tax')),
    description text,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (balance_transaction_id, balance_transaction_created)
    REFERENCES payments.balance_transactions (id, created)
);
CREATE INDEX fee_details_by_balance_transaction ON payments.fee_details (balance_transaction_id);

-- At most two a dispute: the money is withdrawn, and given back when the merchant wins.
CREATE TABLE payments.dispute_balance_transactions (
    dispute_id uuid NOT NULL REFERENCES payments.disputes (id),
    kind text NOT NULL CHECK (kind IN ('withdrawn', 'reinstated')),
    balance_transaction_id uuid NOT NULL,
    balance_transaction_created timestamptz NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dispute_id, kind),
    FOREIGN KEY (balance_transaction_id, balance_transaction_created)
    REFERENCES payments.balance_transactions (id, created)
);

CALL payments.guard('payments.payouts', 'id', 'created', 'merchant_id', 'amount', 'currency');
CALL payments.guard(
    'payments.fee_details', 'id', 'created', 'balance_transaction_id', 'balance_transaction_created', 'currency'
);
CALL payments.guard('payments.dispute_balance_transactions', 'dispute_id', 'kind', 'created');

COMMENT ON COLUMN payments.payouts.amount
IS 'Minor units of currency: the sum of the net of the ledger rows that name this payout.';
COMMENT ON COLUMN payments.payouts.arrival_date IS 'Day, in UTC, on which the bank account shall have it.';
COMMENT ON COLUMN payments.balance_transactions.payout_id IS 'The payout that paid this movement out; null: none yet.';
COMMENT ON COLUMN payments.fee_details.amount IS 'Minor units of currency; the parts of a fee add up to it.';
