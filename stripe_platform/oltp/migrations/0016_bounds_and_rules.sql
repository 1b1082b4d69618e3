-- Every text has a bound, and rules that real payments break, or that let wrong ones pass, are put right. Nothing here
-- reads a table: a constraint that is not validated holds for every row written from now on, and 0017 reads the others.

-- A change record above the broker's 10 MB stops the connector, and with it the change stream of every table: a row is
-- small by its schema. Lists of allowed words are bounds already. Descriptions as at Stripe 5,000 characters, e-mail
-- addresses 512, idempotency keys 255; the others have the next of these that is ample.
DO $$
DECLARE
    bound record;
BEGIN
    FOR bound IN
        SELECT listed.relation, unnest(listed.names) AS name, listed.characters
        FROM (VALUES
            ('payments.balance_transactions', '{description}'::name[], 5000),
            ('payments.charges', '{description}', 5000),
            ('payments.fee_details', '{description}', 5000),
            ('payments.invoice_lines', '{description}', 5000),
            ('payments.charge_outcomes', '{seller_message}', 5000),
            ('payments.currencies', '{name}', 512),
            ('payments.countries', '{name, region}', 512),
            ('payments.merchants', '{business_name}', 512),
            ('payments.products', '{name}', 512),
            ('payments.customers', '{email, name, phone}', 512),
            ('payments.addresses', '{line1, city, state, postal_code}', 512),
            ('payments.charges', '{failure_code, decline_code, device_id}', 255),
            ('payments.charge_outcomes', '{reason, rule_id, model_version}', 255),
            ('payments.disputes', '{network_reason_code}', 255),
            ('payments.refunds', '{failure_reason}', 255),
            ('payments.payouts', '{failure_code}', 255),
            ('payments.payment_intents', '{idempotency_key}', 255),
            ('payments.payment_methods', '{card_fingerprint}', 255),
            ('payments.products', '{tax_code}', 255),
            ('payments.invoices', '{number}', 255),
            ('payments.events', '{type, object_type, api_version, request_id, idempotency_key}', 255)
        ) AS listed (relation, names, characters)
    LOOP
        EXECUTE format(
            'ALTER TABLE %s ADD CONSTRAINT %I CHECK (char_length(%I) <= %s) NOT VALID',
            bound.relation, format('%s_within_%s_characters', bound.name, bound.characters), bound.name, bound.characters
        );
    END LOOP;
END
$$;

-- A payment may be blocked once the bank has approved it: it is then reversed.
ALTER TABLE payments.charge_outcomes DROP CONSTRAINT blocked_was_not_sent;
ALTER TABLE payments.charge_outcomes ADD CONSTRAINT blocked_was_not_sent_or_reversed CHECK (
    type <> 'blocked' OR network_status IN ('not_sent_to_network', 'reversed_after_approval')
) NOT VALID;

-- A tax may be included in the prices of some lines and come on top of others: what is included is not added. Of a
-- credit both are negative.
ALTER TABLE payments.invoices DROP CONSTRAINT total_is_subtotal_and_tax;
ALTER TABLE payments.invoices ADD CONSTRAINT total_is_subtotal_and_tax_on_top CHECK (
    total BETWEEN least(subtotal, subtotal + tax) AND greatest(subtotal, subtotal + tax)
) NOT VALID;

-- A negative payout takes what a merchant owes from the bank account.
ALTER TABLE payments.payouts DROP CONSTRAINT payouts_amount_check;
ALTER TABLE payments.payouts ADD CONSTRAINT a_payout_moves_money CHECK (amount <> 0) NOT VALID;

-- One authorization may be captured in several parts: the intent has received some and waits for the rest, which may
-- be canceled. The parts never come to more than the whole.
ALTER TABLE payments.payment_intents DROP CONSTRAINT only_a_success_has_received;
ALTER TABLE payments.payment_intents ADD CONSTRAINT only_an_authorization_has_received CHECK (
    amount_received = 0 OR status IN ('succeeded', 'requires_capture', 'canceled')
) NOT VALID;
ALTER TABLE payments.payment_intents ADD CONSTRAINT received_and_capturable_within_amount CHECK (
    amount_received + amount_capturable <= amount
) NOT VALID;

-- What a price says, and how often, never changes: it has been billed so.
DROP TRIGGER forbid_key_change ON payments.prices;
DROP TRIGGER set_updated ON payments.prices;
DROP TRIGGER forbid_truncate ON payments.prices;
CALL payments.guard(
    'payments.prices', 'id', 'created', 'product_id', 'unit_amount', 'currency', 'type', 'billing_scheme',
    'recurring_interval', 'interval_count', 'usage_type'
);

-- One period of a subscription is billed once; an invoice that was voided may be made again.
CREATE UNIQUE INDEX invoices_once_a_cycle ON payments.invoices (subscription_id, period_start)
WHERE billing_reason = 'subscription_cycle' AND status <> 'void';

COMMENT ON COLUMN payments.invoices.tax
IS 'Minor units of currency, included in subtotal or on top of it; total holds what is on top.';
COMMENT ON COLUMN payments.payouts.amount
IS 'Minor units of currency: the sum of the net of the ledger rows that name this payout; negative for a debit.';
COMMENT ON COLUMN payments.balance_transactions.exchange_rate
IS 'Major units of currency for one of its source''s currency; null when they are the same.';
