"""What the marts and PostgreSQL must both say of the payments, each reckoned in its own way."""

from stripe_platform_tests.end_to_end.reporting_sums_of_postgres import REPORTING_SUMS
from stripe_platform_tests.end_to_end.same_sums import SameSums

SAME_SUMS = (
    SameSums(
        "refunds",
        "select currency, status, count(*), sum(amount)::bigint, sum(net)::bigint from marts.fact_refunds group by all",
        """
        SELECT refund.currency, refund.status, count(*), sum(refund.amount)::bigint, coalesce(sum(moved.net), 0)::bigint
        FROM refunds AS refund
        LEFT JOIN (
            SELECT source_id, sum(net) AS net FROM balance_transactions WHERE source_type = 'refund' GROUP BY 1
        ) AS moved ON moved.source_id = refund.id
        GROUP BY 1, 2
        """,
    ),
    SameSums(
        "disputes",
        """
        select status, count(*), sum(amount)::bigint, sum(amount_won + amount_lost)::bigint, sum(net)::bigint,
            sum(case when is_closed then days_open end)::bigint
        from marts.fact_disputes group by all
        """,
        """
        SELECT dispute.status, count(*), sum(dispute.amount)::bigint,
            coalesce(sum(dispute.amount) FILTER (WHERE dispute.status IN ('won', 'lost')), 0)::bigint,
            coalesce(sum(moved.net), 0)::bigint,
            sum((closed.at AT TIME ZONE 'UTC')::date - (dispute.created AT TIME ZONE 'UTC')::date)
        FROM disputes AS dispute
        LEFT JOIN (
            SELECT source_id, sum(net) AS net FROM balance_transactions WHERE source_type = 'dispute' GROUP BY 1
        ) AS moved ON moved.source_id = dispute.id
        LEFT JOIN (
            SELECT object_id, max(created) AS at FROM events WHERE type = 'charge.dispute.closed' GROUP BY 1
        ) AS closed ON closed.object_id = dispute.id
        GROUP BY 1
        """,
    ),
    SameSums(
        "payouts",
        "select currency, status, count(*), sum(amount)::bigint, sum(net)::bigint from marts.fact_payouts group by all",
        """
        SELECT payout.currency, payout.status, count(*), sum(payout.amount)::bigint, sum(moved.net)::bigint
        FROM payouts AS payout
        LEFT JOIN (
            SELECT source_id, sum(net) AS net FROM balance_transactions WHERE source_type = 'payout' GROUP BY 1
        ) AS moved ON moved.source_id = payout.id
        GROUP BY 1, 2
        """,
    ),
    SameSums(
        "what each payout paid out",
        "select payout_id, movements, net, is_reconciled from marts.payout_reconciliation",
        """
        SELECT payout.id::text, count(*), sum(movement.net)::bigint, sum(movement.net) = payout.amount
        FROM payouts AS payout
        INNER JOIN balance_transactions AS movement
            ON movement.payout_id = payout.id AND movement.source_id IS DISTINCT FROM payout.id
        GROUP BY payout.id
        """,
    ),
    SameSums(
        "attempts",
        """
        select day::varchar, card_brand, card_country, merchant_id, attempted, sent_to_network, authorized, blocked,
            succeeded, payment_success_rate
        from marts.authorization_rates
        """,
        """
        SELECT (charge.created AT TIME ZONE 'UTC')::date::text, card.brand, card.issuer_country,
            charge.merchant_id::text, count(*),
            count(*) FILTER (WHERE outcome.network_status <> 'not_sent_to_network'),
            count(*) FILTER (WHERE outcome.network_status IN ('approved_by_network', 'reversed_after_approval')),
            count(*) FILTER (WHERE outcome.type = 'blocked'),
            count(*) FILTER (WHERE charge.paid),
            count(*) FILTER (WHERE charge.paid) / count(*)::double precision
        FROM charges AS charge
        LEFT JOIN charge_outcomes AS outcome
            ON outcome.charge_id = charge.id AND outcome.charge_created = charge.created
        LEFT JOIN payment_methods AS method ON method.id = charge.payment_method_id
        LEFT JOIN card_fingerprints AS card ON card.fingerprint = method.card_fingerprint
        GROUP BY 1, 2, 3, 4
        """,
    ),
    SameSums(
        "payments of one or more attempts",
        """
        select sum(payments)::bigint, sum(payments_sent_to_network)::bigint, sum(payments_authorized)::bigint,
            sum(payments_succeeded)::bigint
        from marts.authorization_rates
        """,
        """
        SELECT count(DISTINCT payment.id),
            count(DISTINCT payment.id) FILTER (WHERE network_status <> 'not_sent_to_network'),
            count(DISTINCT payment.id) FILTER (
                WHERE network_status IN ('approved_by_network', 'reversed_after_approval')
            ),
            count(DISTINCT payment.id) FILTER (WHERE paid)
        FROM charges AS charge
        CROSS JOIN LATERAL (SELECT coalesce(charge.payment_intent_id, charge.id) AS id) AS payment
        LEFT JOIN charge_outcomes AS outcome
            ON outcome.charge_id = charge.id AND outcome.charge_created = charge.created
        """,
    ),
    SameSums(
        "why attempts failed",
        "select day::varchar, card_brand, card_country, merchant_id, decline_code, declined from marts.decline_codes",
        """
        SELECT (charge.created AT TIME ZONE 'UTC')::date::text, card.brand, card.issuer_country,
            charge.merchant_id::text, coalesce(charge.decline_code, charge.failure_code), count(*)
        FROM charges AS charge
        LEFT JOIN payment_methods AS method ON method.id = charge.payment_method_id
        LEFT JOIN card_fingerprints AS card ON card.fingerprint = method.card_fingerprint
        WHERE charge.status = 'failed'
        GROUP BY 1, 2, 3, 4, 5
        """,
    ),
    SameSums(
        "what is disputed of a charge",
        "select charge_id, amount_disputed from marts.fact_charges where amount_disputed > 0",
        """
        SELECT charge_id::text, sum(amount)::bigint
        FROM disputes
        WHERE status NOT LIKE 'warning%'
        GROUP BY 1
        """,
    ),
    SameSums(
        "ledger rows of each kind of a day",
        """
        select day::varchar, merchant_id, currency, charge_count, refund_count, refund_failure_count, dispute_count,
            dispute_reversal_count
        from marts.daily_revenue
        """,
        """
        SELECT (created AT TIME ZONE 'UTC')::date::text, merchant_id::text, currency,
            count(*) FILTER (WHERE reporting_category = 'charge'),
            count(*) FILTER (WHERE reporting_category = 'refund'),
            count(*) FILTER (WHERE reporting_category = 'refund_failure'),
            count(*) FILTER (WHERE reporting_category = 'dispute'),
            count(*) FILTER (WHERE reporting_category = 'dispute_reversal')
        FROM balance_transactions
        WHERE reporting_category IN ('charge', 'refund', 'refund_failure', 'dispute', 'dispute_reversal', 'fee')
        GROUP BY 1, 2, 3
        """,
    ),
    SameSums(
        "currencies",
        "select code, minor_units from marts.dim_currency",
        "SELECT code, (10 ^ exponent)::int FROM currencies",
    ),
    SameSums(
        "countries",
        "select iso2, name, region from marts.dim_country",
        "SELECT iso2, name, region FROM countries",
    ),
    SameSums(
        "charges, disputes and fraud reports of a month",
        """
        select month::varchar, merchant_id, card_brand, successful_charges, settled_charges, charges_of_month_before,
            disputes, disputes_of_charges, won, lost, fraud_warnings
        from marts.dispute_rates
        """,
        """
        WITH known AS (
            SELECT charge.*, card.brand
            FROM charges AS charge
            LEFT JOIN payment_methods AS method ON method.id = charge.payment_method_id
            LEFT JOIN card_fingerprints AS card ON card.fingerprint = method.card_fingerprint
        ),
        happened AS (
            SELECT 'charge' AS what, amount_captured > 0 AS settled, created, merchant_id, brand, NULL AS status
            FROM known
            WHERE paid
            UNION ALL
            SELECT 'charge before', false, following, merchant_id, brand, NULL
            FROM known
            CROSS JOIN LATERAL (
                SELECT (date_trunc('month', created AT TIME ZONE 'UTC') + INTERVAL '1 month') AT TIME ZONE 'UTC'
            ) AS next_month (following)
            WHERE paid AND following <= now()
            UNION ALL
            SELECT what, false, CASE what WHEN 'dispute' THEN dispute.created ELSE known.created END, merchant_id,
                brand, dispute.status
            FROM disputes AS dispute
            INNER JOIN known ON known.id = dispute.charge_id
            CROSS JOIN (VALUES ('dispute'), ('dispute of charge')) AS counted (what)
            WHERE dispute.status NOT LIKE 'warning%'
            UNION ALL
            SELECT 'fraud', false, warning.created, merchant_id, brand, NULL
            FROM early_fraud_warnings AS warning
            INNER JOIN known ON known.id = warning.charge_id
        )
        SELECT date_trunc('month', created AT TIME ZONE 'UTC')::date::text, merchant_id::text, brand,
            count(*) FILTER (WHERE what = 'charge'),
            count(*) FILTER (WHERE settled),
            count(*) FILTER (WHERE what = 'charge before'),
            count(*) FILTER (WHERE what = 'dispute'),
            count(*) FILTER (WHERE what = 'dispute of charge'),
            count(*) FILTER (WHERE what = 'dispute' AND status = 'won'),
            count(*) FILTER (WHERE what = 'dispute' AND status = 'lost'),
            count(*) FILTER (WHERE what = 'fraud')
        FROM happened
        GROUP BY 1, 2, 3
        """,
    ),
    SameSums(
        "reasons of disputes",
        "select month::varchar, merchant_id, reason, disputes, won, lost from marts.dispute_reasons",
        """
        SELECT date_trunc('month', dispute.created AT TIME ZONE 'UTC')::date::text, charge.merchant_id::text,
            dispute.reason, count(*),
            count(*) FILTER (WHERE dispute.status = 'won'),
            count(*) FILTER (WHERE dispute.status = 'lost')
        FROM disputes AS dispute
        INNER JOIN charges AS charge ON charge.id = dispute.charge_id
        WHERE dispute.status NOT LIKE 'warning%'
        GROUP BY 1, 2, 3
        """,
    ),
    SameSums(
        "MRR of each subscription item at the end of a month",
        "select month::varchar, subscription_item_id, merchant_id, customer_id, currency, mrr from marts.mrr",
        """
        WITH owed AS (
            SELECT line.*, item.subscription_id, price.recurring_interval, price.interval_count
            FROM invoice_lines AS line
            INNER JOIN invoices AS invoice ON invoice.id = line.invoice_id
            INNER JOIN subscription_items AS item ON item.id = line.subscription_item_id
            INNER JOIN prices AS price ON price.id = line.price_id
            WHERE NOT line.proration AND invoice.status <> 'void'
        )
        SELECT month::date::text, item.id::text, subscription.merchant_id::text, subscription.customer_id::text,
            subscription.currency,
            CASE
                WHEN least(subscription.ended_at, dropped.at) < (month + INTERVAL '1 month') AT TIME ZONE 'UTC' THEN 0
                ELSE round(
                    billed.amount * CASE billed.recurring_interval WHEN 'week' THEN 52 WHEN 'day' THEN 365 ELSE 1 END
                    / (CASE billed.recurring_interval WHEN 'month' THEN 1 ELSE 12 END * billed.interval_count)::numeric
                )::bigint
            END
        FROM (SELECT min(created) AT TIME ZONE 'UTC' AS first FROM charges) AS charged
        CROSS JOIN generate_series(date_trunc('month', first), now() AT TIME ZONE 'UTC', INTERVAL '1 month') AS month
        CROSS JOIN subscription_items AS item
        INNER JOIN subscriptions AS subscription ON subscription.id = item.subscription_id
        CROSS JOIN LATERAL (
            SELECT *
            FROM owed
            WHERE subscription_item_id = item.id
                AND period_start < (month + INTERVAL '1 month') AT TIME ZONE 'UTC'
            ORDER BY period_start DESC
            LIMIT 1
        ) AS billed
        CROSS JOIN LATERAL (
            SELECT min(period_start) AS at
            FROM owed
            WHERE subscription_item_id = item.id AND period_start > billed.period_start
        ) AS billed_next
        LEFT JOIN LATERAL (
            SELECT billed.period_end AS at
            FROM owed AS other
            WHERE other.subscription_id = item.subscription_id AND other.subscription_item_id <> item.id
                AND other.period_start > billed.period_start AND other.period_end > billed.period_end
                AND (billed_next.at IS NULL OR billed_next.at > billed.period_end)
            LIMIT 1
        ) AS dropped ON true
        WHERE subscription.status NOT IN ('incomplete', 'incomplete_expired')
            AND (subscription.ended_at IS NULL OR subscription.ended_at >= month AT TIME ZONE 'UTC')
            AND (dropped.at IS NULL OR dropped.at >= month AT TIME ZONE 'UTC' OR billed_next.at IS NOT NULL)
        """,
    ),
    *REPORTING_SUMS,
)
