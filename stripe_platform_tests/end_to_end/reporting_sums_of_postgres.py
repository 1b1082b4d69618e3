"""Sums in the reporting currency, of merchants and of customers: what the marts and PostgreSQL must both say."""

from stripe_platform_tests.end_to_end.same_sums import SameSums


def in_euros(amount: str, currency: str, created: str) -> str:
    """The amount by the latest rate up to its UTC day; half a cent goes to the even one. Null: no rate."""
    return f"""(
        SELECT (
            floor(exact) + CASE
                WHEN exact - floor(exact) > 0.5 OR (exact - floor(exact) = 0.5 AND mod(floor(exact), 2) <> 0) THEN 1
                ELSE 0
            END
        )::bigint
        FROM (
            SELECT {amount}::numeric AS exact WHERE {currency} = 'eur'
            UNION ALL
            (
                SELECT {amount} * known.rate * 10::numeric ^ (2 - unit.exponent)
                FROM exchange_rates AS known
                INNER JOIN currencies AS unit ON unit.code = known.currency
                WHERE known.currency = {currency} AND {currency} <> 'eur'
                    AND known.day <= ({created} AT TIME ZONE 'UTC')::date
                ORDER BY known.day DESC
                LIMIT 1
            )
        ) AS converted
    )"""


PAID = f"""
    paid AS (
        SELECT id, merchant_id, customer_id, currency, created, amount_captured,
            date_trunc('month', created AT TIME ZONE 'UTC')::date AS month,
            {in_euros("charges.amount_captured", "charges.currency", "charges.created")} AS euros
        FROM charges
        WHERE status = 'succeeded'
    )
"""
MOVED = f"""
    moved AS MATERIALIZED (
        SELECT movement.*,
            {in_euros("movement.amount", "movement.currency", "movement.created")} AS euros,
            {in_euros("movement.fee", "movement.currency", "movement.created")} AS fee_euros
        FROM balance_transactions AS movement
    )
"""


def of_source(mart: str, source_type: str) -> SameSums:
    """What the ledger rows that name an object as their source come to."""
    return SameSums(
        f"what the ledger moved for each {source_type}",
        f"select {source_type}_id, fee_reporting, net_reporting from marts.{mart} where net_reporting <> 0",
        f"""
        WITH {MOVED}
        SELECT source_id::text, sum(fee_euros)::bigint, sum(euros - fee_euros)::bigint
        FROM moved
        WHERE source_type = '{source_type}'
        GROUP BY source_id
        HAVING sum(euros - fee_euros) <> 0
        """,
    )


REPORTING_SUMS = (
    of_source("fact_refunds", "refund"),
    of_source("fact_disputes", "dispute"),
    of_source("fact_payouts", "payout"),
    SameSums(
        "what each payout paid out in the reporting currency",
        """
        select payout_id, gross_reporting, fees_reporting, net_reporting
        from marts.payout_reconciliation where movements > 0
        """,
        f"""
        WITH {MOVED}
        SELECT payout_id::text, sum(euros)::bigint, sum(fee_euros)::bigint, sum(euros - fee_euros)::bigint
        FROM moved
        WHERE payout_id IS NOT NULL AND source_id IS DISTINCT FROM payout_id
        GROUP BY payout_id
        """,
    ),
    SameSums(
        "GMV and what it cost",
        """
        select month::varchar, merchant_id, currency, charges, gmv, active_customers, gmv_reporting, fees_reporting
        from marts.merchant_gmv
        """,
        f"""
        WITH {PAID},
        {MOVED},
        charged AS (
            SELECT CASE WHEN source_type = 'charge' THEN movement.source_id
                ELSE coalesce(refund.charge_id, dispute.charge_id) END AS charge_id,
                movement.fee_euros AS euros
            FROM moved AS movement
            LEFT JOIN refunds AS refund ON movement.source_type = 'refund' AND refund.id = movement.source_id
            LEFT JOIN disputes AS dispute ON movement.source_type = 'dispute' AND dispute.id = movement.source_id
        ),
        fees AS (SELECT charge_id, sum(euros) AS euros FROM charged GROUP BY 1)
        SELECT paid.month::text, paid.merchant_id::text, paid.currency, count(*), sum(paid.amount_captured)::bigint,
            count(DISTINCT paid.customer_id), sum(paid.euros)::bigint, coalesce(sum(fees.euros), 0)::bigint
        FROM paid
        LEFT JOIN fees ON fees.charge_id = paid.id
        GROUP BY paid.month, paid.merchant_id, paid.currency
        """,
    ),
    SameSums(
        "months in which a cohort came back",
        """
        select cohort_month::varchar, months_since, customers, retained, revenue_reporting
        from marts.customer_cohorts where retained > 0
        """,
        f"""
        WITH {PAID},
        cohorts AS (SELECT customer_id, min(month) AS first FROM paid WHERE customer_id IS NOT NULL GROUP BY 1),
        sizes AS (SELECT first, count(*) AS customers FROM cohorts GROUP BY 1)
        SELECT first::text,
            (12 * (extract(year FROM month) - extract(year FROM first))
            + extract(month FROM month) - extract(month FROM first))::int,
            customers, count(DISTINCT customer_id), sum(euros)::bigint
        FROM paid INNER JOIN cohorts USING (customer_id) INNER JOIN sizes USING (first)
        GROUP BY first, month, customers
        """,
    ),
    SameSums(
        "what each customer paid",
        """
        select customer_id, merchant_id, frequency, failed_charges, monetary_reporting, last_charge_at
        from marts.customer_rfm
        """,
        f"""
        WITH {PAID}
        SELECT charge.customer_id::text, customer.merchant_id::text, count(paid.id),
            count(*) FILTER (WHERE charge.status = 'failed'), coalesce(sum(paid.euros), 0)::bigint, max(paid.created)
        FROM charges AS charge
        INNER JOIN customers AS customer ON customer.id = charge.customer_id
        LEFT JOIN paid ON paid.id = charge.id
        GROUP BY charge.customer_id, customer.merchant_id
        """,
    ),
    SameSums(
        "rolling revenue on days that have some",
        """
        select day::varchar, currency, gross, net, gross_7_days, net_28_days, balance,
            gross_reporting, net_reporting, gross_28_days_reporting, net_7_days_reporting
        from marts.rolling_revenue
        where (day, currency) in (select (day, currency) from marts.daily_revenue)
        """,
        f"""
        WITH {MOVED},
        daily AS (
            SELECT (created AT TIME ZONE 'UTC')::date AS day, currency,
                coalesce(sum(amount) FILTER (WHERE reporting_category = 'charge'), 0) AS gross, sum(net) AS net,
                coalesce(sum(euros) FILTER (WHERE reporting_category = 'charge'), 0) AS gross_euros,
                sum(euros - fee_euros) AS net_euros
            FROM moved
            WHERE reporting_category IN ('charge', 'refund', 'refund_failure', 'dispute', 'dispute_reversal', 'fee')
            GROUP BY 1, 2
        )
        SELECT day::text, currency, gross::bigint, net::bigint,
            (sum(gross) OVER (of_currency RANGE BETWEEN '6 days' PRECEDING AND CURRENT ROW))::bigint,
            (sum(net) OVER (of_currency RANGE BETWEEN '27 days' PRECEDING AND CURRENT ROW))::bigint,
            (sum(net) OVER of_currency)::bigint,
            gross_euros::bigint, net_euros::bigint,
            (sum(gross_euros) OVER (of_currency RANGE BETWEEN '27 days' PRECEDING AND CURRENT ROW))::bigint,
            (sum(net_euros) OVER (of_currency RANGE BETWEEN '6 days' PRECEDING AND CURRENT ROW))::bigint
        FROM daily
        WINDOW of_currency AS (PARTITION BY currency ORDER BY day)
        """,
    ),
)
