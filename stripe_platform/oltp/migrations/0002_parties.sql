-- Who pays and who is paid: merchants, customers, cards and how customers hold them.

CREATE TABLE payments.merchants (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    type text NOT NULL DEFAULT 'standard' CHECK (type IN ('standard', 'express', 'custom', 'none')),
    business_type text NOT NULL DEFAULT 'company'
    CHECK (business_type IN ('individual', 'company', 'non_profit', 'government_entity')),
    business_name text NOT NULL,
    mcc char(4) NOT NULL CHECK (mcc ~ '^[0-9]{4}$'),
    country char(2) NOT NULL REFERENCES payments.countries (iso2),
    default_currency char(3) NOT NULL REFERENCES payments.currencies (code),
    charges_enabled boolean NOT NULL DEFAULT TRUE,
    payouts_enabled boolean NOT NULL DEFAULT TRUE,
    statement_descriptor text CHECK (length(statement_descriptor) <= 22),
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE payments.customers (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    merchant_id uuid REFERENCES payments.merchants (id),
    email text,
    name text,
    phone text,
    country char(2) REFERENCES payments.countries (iso2),
    currency char(3) REFERENCES payments.currencies (code),
    delinquent boolean NOT NULL DEFAULT FALSE,
    balance bigint NOT NULL DEFAULT 0 CHECK (balance = 0 OR currency IS NOT NULL),
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);
-- A merchant's customer list, newest first.
CREATE INDEX customers_by_merchant ON payments.customers (merchant_id, created DESC) WHERE merchant_id IS NOT NULL;

-- One row per physical card, shared by merchants: velocity across the network is counted on it.
CREATE TABLE payments.card_fingerprints (
    fingerprint text PRIMARY KEY CHECK (length(fingerprint) BETWEEN 16 AND 64),
    brand text NOT NULL CHECK (
        brand IN (
            'amex', 'cartes_bancaires', 'diners', 'discover', 'eftpos_au', 'jcb', 'link', 'mastercard', 'unionpay',
            'visa', 'unknown'
        )
    ),
    funding text NOT NULL CHECK (funding IN ('credit', 'debit', 'prepaid', 'unknown')),
    issuer_country char(2) REFERENCES payments.countries (iso2),
    bin6 char(6) CHECK (bin6 ~ '^[0-9]{6}$'),
    last4 char(4) CHECK (last4 ~ '^[0-9]{4}$'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE payments.payment_methods (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    customer_id uuid REFERENCES payments.customers (id),
    card_fingerprint text REFERENCES payments.card_fingerprints (fingerprint),
    type text NOT NULL DEFAULT 'card' CHECK (type IN ('card')),
    exp_month smallint CHECK (exp_month BETWEEN 1 AND 12),
    exp_year smallint CHECK (exp_year BETWEEN 2000 AND 2100),
    cvc_check text CHECK (cvc_check IN ('pass', 'fail', 'unavailable', 'unchecked')),
    address_line1_check text CHECK (address_line1_check IN ('pass', 'fail', 'unavailable', 'unchecked')),
    address_postal_code_check text CHECK (address_postal_code_check IN ('pass', 'fail', 'unavailable', 'unchecked')),
    wallet text CHECK (wallet IN ('apple_pay', 'google_pay', 'link', 'samsung_pay')),
    three_d_secure_supported boolean NOT NULL DEFAULT FALSE,
    detached_at timestamptz,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    CHECK (type <> 'card' OR card_fingerprint IS NOT NULL)
);
CREATE INDEX payment_methods_by_customer ON payments.payment_methods (customer_id);
CREATE INDEX payment_methods_by_card ON payments.payment_methods (card_fingerprint);

CALL payments.guard('payments.merchants', 'id', 'created');
CALL payments.guard('payments.customers', 'id', 'created');
CALL payments.guard('payments.card_fingerprints', 'fingerprint', 'created');
CALL payments.guard('payments.payment_methods', 'id', 'created');

COMMENT ON COLUMN payments.merchants.mcc IS 'Merchant category code, ISO 18245.';
COMMENT ON COLUMN payments.merchants.statement_descriptor IS 'What the card holder reads on the statement.';
COMMENT ON COLUMN payments.customers.merchant_id
IS 'Null: a customer of the platform itself, who pays at many merchants (imported payers are such).';
COMMENT ON COLUMN payments.customers.balance
IS 'Credit (negative) or debt (positive) towards the next invoice, minor units of currency.';
COMMENT ON COLUMN payments.card_fingerprints.fingerprint
IS 'Pseudonym of the card number, which is kept nowhere.';
