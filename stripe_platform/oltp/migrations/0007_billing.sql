-- What merchants sell and bill: addresses, the catalogue, subscriptions and invoices. Customers leave softly.

-- A customer who leaves is marked, never removed: charges and invoices still name them.
ALTER TABLE payments.customers ADD COLUMN deleted_at timestamptz;
ALTER TABLE payments.customers ADD CONSTRAINT not_deleted_before_created CHECK (deleted_at >= created);
-- A merchant's customer list shows those who have not left.
DROP INDEX payments.customers_by_merchant;
CREATE INDEX customers_by_merchant ON payments.customers (merchant_id, created DESC) WHERE deleted_at IS NULL;
-- A merchant finds a customer by the reference of their own shop.
CREATE INDEX customers_by_metadata ON payments.customers USING gin (metadata jsonb_path_ops);

CREATE TABLE payments.addresses (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    customer_id uuid NOT NULL REFERENCES payments.customers (id),
    kind text NOT NULL CHECK (kind IN ('billing', 'shipping')),
    line1 text,
    city text,
    state text,
    postal_code text,
    country char(2) NOT NULL REFERENCES payments.countries (iso2),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX addresses_by_customer ON payments.addresses (customer_id);

CREATE TABLE payments.products (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    merchant_id uuid NOT NULL REFERENCES payments.merchants (id),
    name text NOT NULL,
    active boolean NOT NULL DEFAULT TRUE,
    tax_code text,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX products_by_merchant ON payments.products (merchant_id) WHERE active;

CREATE TABLE payments.prices (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    product_id uuid NOT NULL REFERENCES payments.products (id),
    unit_amount bigint NOT NULL CHECK (unit_amount >= 0),
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    type text NOT NULL CHECK (type IN ('one_time', 'recurring')),
    billing_scheme text NOT NULL DEFAULT 'per_unit' CHECK (billing_scheme IN ('per_unit', 'tiered')),
    recurring_interval text CHECK (recurring_interval IN ('day', 'week', 'month', 'year')),
    interval_count smallint CHECK (interval_count > 0),
    usage_type text CHECK (usage_type IN ('licensed', 'metered')),
    tax_behavior text NOT NULL DEFAULT 'unspecified' CHECK (
        tax_behavior IN ('inclusive', 'exclusive', 'unspecified')
    ),
    active boolean NOT NULL DEFAULT TRUE,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT recurring_has_an_interval CHECK (
        (type = 'recurring') = (recurring_interval IS NOT NULL AND interval_count IS NOT NULL)
    )
);
CREATE INDEX prices_by_product ON payments.prices (product_id) WHERE active;

CREATE TABLE payments.subscriptions (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    merchant_id uuid NOT NULL REFERENCES payments.merchants (id),
    customer_id uuid NOT NULL REFERENCES payments.customers (id),
    default_payment_method_id uuid REFERENCES payments.payment_methods (id),
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    status text NOT NULL CHECK (
        status IN (
            'incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'canceled', 'unpaid', 'paused'
        )
    ),
    collection_method text NOT NULL DEFAULT 'charge_automatically' CHECK (
        collection_method IN ('charge_automatically', 'send_invoice')
    ),
    start_date timestamptz NOT NULL,
    trial_end timestamptz,
    cancel_at timestamptz,
    canceled_at timestamptz,
    ended_at timestamptz,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT canceled_has_a_time CHECK (status <> 'canceled' OR canceled_at IS NOT NULL),
    CONSTRAINT ended_after_start CHECK (ended_at >= start_date)
);
CREATE INDEX subscriptions_by_customer ON payments.subscriptions (customer_id);
-- What a merchant earns again and again.
CREATE INDEX subscriptions_that_bill ON payments.subscriptions (merchant_id)
WHERE status IN ('trialing', 'active', 'past_due');

CREATE TABLE payments.subscription_items (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    subscription_id uuid NOT NULL REFERENCES payments.subscriptions (id),
    price_id uuid NOT NULL REFERENCES payments.prices (id),
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 0),
    current_period_start timestamptz NOT NULL,
    current_period_end timestamptz NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT period_runs_forward CHECK (current_period_end > current_period_start)
);
CREATE INDEX subscription_items_by_subscription ON payments.subscription_items (subscription_id);
-- The billing run takes what has come to the end of its period.
CREATE INDEX subscription_items_by_period_end ON payments.subscription_items (current_period_end);

CREATE TABLE payments.invoices (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    merchant_id uuid NOT NULL REFERENCES payments.merchants (id),
    customer_id uuid NOT NULL REFERENCES payments.customers (id),
    subscription_id uuid REFERENCES payments.subscriptions (id),
    number text,
    status text NOT NULL CHECK (status IN ('draft', 'open', 'paid', 'uncollectible', 'void')),
    billing_reason text NOT NULL CHECK (
        billing_reason IN (
            'manual', 'subscription_create', 'subscription_cycle', 'subscription_update', 'subscription_threshold',
            'upcoming'
        )
    ),
    collection_method text NOT NULL DEFAULT 'charge_automatically' CHECK (
        collection_method IN ('charge_automatically', 'send_invoice')
    ),
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    subtotal bigint NOT NULL,
    tax bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL,
    amount_due bigint NOT NULL CHECK (amount_due >= 0),
    amount_paid bigint NOT NULL DEFAULT 0,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    due_date timestamptz,
    finalized_at timestamptz,
    paid_at timestamptz,
    livemode boolean NOT NULL DEFAULT FALSE,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    UNIQUE (merchant_id, number),
    CONSTRAINT total_is_subtotal_and_tax CHECK (total = subtotal + tax),
    CONSTRAINT paid_within_due CHECK (amount_paid BETWEEN 0 AND amount_due),
    CONSTRAINT paid_means_in_full CHECK (status <> 'paid' OR amount_paid = amount_due),
    CONSTRAINT paid_has_a_time CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
    CONSTRAINT a_draft_has_no_number CHECK ((status = 'draft') = (number IS NULL)),
    CONSTRAINT a_draft_is_not_finalized CHECK ((status = 'draft') = (finalized_at IS NULL)),
    CONSTRAINT period_runs_forward CHECK (period_end >= period_start)
);
CREATE INDEX invoices_by_customer ON payments.invoices (customer_id, created DESC);
CREATE INDEX invoices_by_subscription
ON payments.invoices (subscription_id, period_start) WHERE subscription_id IS NOT NULL;
-- Dunning reads what is open, the longest overdue first.
CREATE INDEX invoices_that_are_open ON payments.invoices (due_date) WHERE status = 'open';

CREATE TABLE payments.invoice_lines (
    id uuid PRIMARY KEY DEFAULT payments.uuid_v7(),
    invoice_id uuid NOT NULL REFERENCES payments.invoices (id),
    subscription_item_id uuid REFERENCES payments.subscription_items (id),
    price_id uuid REFERENCES payments.prices (id),
    amount bigint NOT NULL,
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity >= 0),
    description text,
    proration boolean NOT NULL DEFAULT FALSE,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT period_runs_forward CHECK (period_end >= period_start)
);
CREATE INDEX invoice_lines_by_invoice ON payments.invoice_lines (invoice_id);

CALL payments.guard('payments.addresses', 'id', 'created', 'customer_id');
CALL payments.guard('payments.products', 'id', 'created', 'merchant_id');
-- As at Stripe, what a price says never changes: another amount is another price.
CALL payments.guard('payments.prices', 'id', 'created', 'product_id', 'unit_amount', 'currency');
CALL payments.guard('payments.subscriptions', 'id', 'created', 'merchant_id', 'customer_id', 'currency');
CALL payments.guard('payments.subscription_items', 'id', 'created', 'subscription_id');
CALL payments.guard('payments.invoices', 'id', 'created', 'merchant_id', 'customer_id', 'currency');
CALL payments.guard('payments.invoice_lines', 'id', 'created', 'invoice_id', 'currency');

COMMENT ON COLUMN payments.customers.deleted_at IS 'When the customer left; the row stays.';
COMMENT ON COLUMN payments.prices.unit_amount IS 'Minor units of currency, for one unit and one interval.';
COMMENT ON COLUMN payments.subscriptions.currency IS 'Of all its prices and invoices.';
COMMENT ON COLUMN payments.subscription_items.current_period_end
IS 'The first instant that is not paid for: the next invoice is due then.';
COMMENT ON COLUMN payments.invoices.subtotal IS 'Sum of the lines, minor units of currency.';
COMMENT ON COLUMN payments.invoices.amount_due IS 'What is to be paid of total, minor units of currency.';
COMMENT ON COLUMN payments.invoice_lines.amount IS 'Minor units of currency; negative for a credit.';
