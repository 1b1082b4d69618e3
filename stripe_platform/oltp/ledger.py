"""What must be true of the payments tables although no constraint can say so: each function counts what is not."""

import psycopg
from psycopg import sql

from stripe_platform.oltp.tables import SCHEMA

# What the movements of each source come to in the source's own currency. A rate, of major units, has rounded each
# converted one by less than a minor unit of the movement's: `rounding` is what that comes to.
_MOVED = sql.SQL("""
SELECT
    source.id,
    sum(CASE WHEN movement.exchange_rate IS NULL THEN movement.amount ELSE movement.amount / rate.minor END) AS amount,
    sum(CASE WHEN movement.exchange_rate IS NULL THEN 0 ELSE 1 / rate.minor END) AS rounding
FROM payments.balance_transactions AS movement
INNER JOIN {table} AS source ON source.id = movement.source_id
INNER JOIN payments.currencies AS settled ON settled.code = movement.currency
INNER JOIN payments.currencies AS presented ON presented.code = source.currency
CROSS JOIN LATERAL (
    SELECT movement.exchange_rate * 10::numeric ^ (settled.exponent - presented.exponent) AS minor
) AS rate
WHERE movement.source_type = {source_type} AND movement.type = ANY({types})
GROUP BY source.id
""")


def _moved(table: str, source_type: str, types: list[str]) -> sql.Composed:
    return _MOVED.format(table=sql.Identifier(SCHEMA, table), source_type=source_type, types=types)


_MISCOUNTED_REFUNDS = sql.SQL("""
SELECT count(*)
FROM payments.charges AS charge
LEFT JOIN (
    SELECT charge_id, charge_created, sum(amount) AS amount
    FROM payments.refunds
    WHERE status NOT IN ('failed', 'canceled')
    GROUP BY charge_id, charge_created
) AS live ON live.charge_id = charge.id AND live.charge_created = charge.created
WHERE charge.amount_refunded <> coalesce(live.amount, 0)
""")
_MISMARKED_DISPUTES = sql.SQL("""
SELECT count(*)
FROM payments.charges AS charge
LEFT JOIN (SELECT DISTINCT charge_id, charge_created FROM payments.disputes) AS dispute
    ON dispute.charge_id = charge.id AND dispute.charge_created = charge.created
WHERE charge.disputed <> (dispute.charge_id IS NOT NULL)
""")
# The source of a movement is in one of several tables: no foreign key can say so.
_UNFOUNDED_MOVEMENTS = sql.SQL("""
SELECT count(*)
FROM payments.balance_transactions AS movement
LEFT JOIN payments.charges AS charge ON movement.source_type = 'charge' AND charge.id = movement.source_id
LEFT JOIN payments.refunds AS refund ON movement.source_type = 'refund' AND refund.id = movement.source_id
LEFT JOIN payments.disputes AS dispute ON movement.source_type = 'dispute' AND dispute.id = movement.source_id
LEFT JOIN payments.payouts AS payout ON movement.source_type = 'payout' AND payout.id = movement.source_id
WHERE movement.source_type IN ('charge', 'refund', 'dispute', 'payout')
    AND coalesce(charge.id, refund.id, dispute.id, payout.id) IS NULL
""")
_MOVEMENTS_UNLIKE_THEIR_SOURCE = sql.SQL("""
SELECT count(*)
FROM payments.balance_transactions AS movement
INNER JOIN (
    SELECT 'charge' AS type, id, merchant_id, currency FROM payments.charges
    UNION ALL
    SELECT 'payout', id, merchant_id, currency FROM payments.payouts
    UNION ALL
    SELECT follower.type, follower.id, charge.merchant_id, follower.currency
    FROM (
        SELECT 'refund' AS type, id, currency, charge_id, charge_created FROM payments.refunds
        UNION ALL
        SELECT 'dispute', id, currency, charge_id, charge_created FROM payments.disputes
    ) AS follower
    INNER JOIN payments.charges AS charge ON charge.id = follower.charge_id AND charge.created = follower.charge_created
) AS source ON source.type = movement.source_type AND source.id = movement.source_id
WHERE movement.merchant_id <> source.merchant_id
    OR (movement.currency = source.currency) <> (movement.exchange_rate IS NULL)
""")
# A charge that is captured in parts has a movement for each.
_MISRECORDED_CHARGES = sql.SQL("""
SELECT count(*)
FROM payments.charges AS charge
LEFT JOIN ({moved}) AS moved ON moved.id = charge.id
WHERE abs(coalesce(moved.amount, 0) - charge.amount_captured) > coalesce(moved.rounding, 0)
""").format(moved=_moved("charges", "charge", ["charge", "payment"]))
# What is under way has moved all of it or nothing yet.
_MISRECORDED_REFUNDS = sql.SQL("""
SELECT count(*)
FROM payments.refunds AS refund
LEFT JOIN payments.balance_transactions AS own
    ON own.id = refund.balance_transaction_id AND own.created = refund.balance_transaction_created
    AND own.source_type = 'refund' AND own.source_id = refund.id
LEFT JOIN ({moved}) AS moved ON moved.id = refund.id
WHERE (own.id IS NULL AND refund.status = 'succeeded')
    OR (
        abs(coalesce(moved.amount, 0) + CASE WHEN refund.status IN ('failed', 'canceled') THEN 0 ELSE refund.amount END)
        > coalesce(moved.rounding, 0)
        AND NOT (moved.id IS NULL AND refund.status IN ('pending', 'requires_action'))
    )
""").format(moved=_moved("refunds", "refund", ["refund", "payment_refund", "refund_failure"]))
_CHARGES_UNLIKE_THEIR_INTENT = sql.SQL("""
SELECT count(*)
FROM payments.charges AS charge
INNER JOIN payments.payment_intents AS intent ON intent.id = charge.payment_intent_id
WHERE charge.currency <> intent.currency OR charge.merchant_id <> intent.merchant_id
""")
_MISCOUNTED_INTENTS = sql.SQL("""
SELECT count(*)
FROM payments.payment_intents AS intent
LEFT JOIN (
    SELECT payment_intent_id, sum(amount_captured) AS amount
    FROM payments.charges
    WHERE payment_intent_id IS NOT NULL
    GROUP BY payment_intent_id
) AS captured ON captured.payment_intent_id = intent.id
WHERE intent.amount_received <> coalesce(captured.amount, 0)
""")
_CHARGES_OF_THE_DELETED = sql.SQL("""
SELECT count(*)
FROM payments.charges AS charge
INNER JOIN payments.customers AS customer ON customer.id = charge.customer_id
WHERE charge.created > customer.deleted_at
""")
_MISCOUNTED_INVOICES = sql.SQL("""
SELECT count(*)
FROM payments.invoices AS invoice
LEFT JOIN (
    SELECT invoice_id, sum(amount) AS amount, min(currency) AS currency, max(currency) AS other_currency
    FROM payments.invoice_lines
    GROUP BY invoice_id
) AS lines ON lines.invoice_id = invoice.id
WHERE invoice.subtotal <> coalesce(lines.amount, 0)
    OR lines.currency <> invoice.currency OR lines.other_currency <> invoice.currency
""")
# A file of payments says nothing of fees: the importer reckons one sum, which has no parts.
_MISCOUNTED_FEES = sql.SQL("""
SELECT count(*)
FROM payments.balance_transactions AS movement
LEFT JOIN (
    SELECT balance_transaction_id AS id, balance_transaction_created AS created, sum(amount) AS amount,
        min(currency) AS currency, max(currency) AS other_currency
    FROM payments.fee_details
    GROUP BY balance_transaction_id, balance_transaction_created
) AS parts ON parts.id = movement.id AND parts.created = movement.created
LEFT JOIN payments.disputes AS dispute ON movement.source_type = 'dispute' AND dispute.id = movement.source_id
LEFT JOIN payments.imported_payments AS imported
    ON imported.charge_id = coalesce(dispute.charge_id, movement.source_id)
WHERE CASE
    WHEN parts.id IS NULL THEN movement.fee <> 0 AND imported.charge_id IS NULL
    ELSE movement.fee <> parts.amount OR movement.currency NOT IN (parts.currency, parts.other_currency)
        OR parts.currency <> parts.other_currency
END
""")
# A movement that the payout itself made, out of the balance or back into it, is none of those that it pays out.
_MISCOUNTED_PAYOUTS = sql.SQL("""
SELECT count(*)
FROM payments.payouts AS payout
LEFT JOIN (
    SELECT payout.id, sum(movement.net) AS net,
        bool_or(movement.merchant_id <> payout.merchant_id OR movement.currency <> payout.currency) AS has_foreign
    FROM payments.balance_transactions AS movement
    INNER JOIN payments.payouts AS payout ON payout.id = movement.payout_id
    WHERE movement.source_id IS DISTINCT FROM payout.id
    GROUP BY payout.id
) AS paid_out ON paid_out.id = payout.id
WHERE payout.reconciliation_status <> 'not_applicable'
    AND (payout.amount <> coalesce(paid_out.net, 0) OR paid_out.has_foreign)
""")
_UNRECORDED_PAYOUTS = sql.SQL("""
SELECT count(*)
FROM payments.payouts AS payout
LEFT JOIN payments.balance_transactions AS own
    ON own.id = payout.balance_transaction_id AND own.created = payout.balance_transaction_created
    AND own.type = 'payout' AND own.source_id = payout.id AND own.currency = payout.currency
LEFT JOIN (
    SELECT source_id, sum(amount) AS amount
    FROM payments.balance_transactions
    WHERE source_type = 'payout' AND type IN ('payout', 'payout_failure', 'payout_cancel')
    GROUP BY source_id
) AS moved ON moved.source_id = payout.id
WHERE own.id IS NULL
    OR moved.amount <> CASE WHEN payout.status IN ('failed', 'canceled') THEN 0 ELSE -payout.amount END
""")
_UNEXPLAINED_DISPUTES = sql.SQL("""
SELECT count(*)
FROM payments.disputes AS dispute
LEFT JOIN (
    SELECT link.dispute_id,
        bool_or(link.kind = 'withdrawn') AS withdrawn,
        bool_or(link.kind = 'reinstated') AS reinstated,
        bool_or(
            movement.source_id IS DISTINCT FROM link.dispute_id
            OR sign(movement.amount) = CASE link.kind WHEN 'withdrawn' THEN 1 ELSE -1 END
        ) AS has_wrong
    FROM payments.dispute_balance_transactions AS link
    INNER JOIN payments.balance_transactions AS movement
        ON movement.id = link.balance_transaction_id AND movement.created = link.balance_transaction_created
    GROUP BY link.dispute_id
) AS linked ON linked.dispute_id = dispute.id
LEFT JOIN ({moved}) AS moved ON moved.id = dispute.id
WHERE linked.has_wrong
    OR coalesce(linked.reinstated, FALSE) <> (dispute.status = 'won')
    OR (dispute.status IN ('won', 'lost') AND linked.withdrawn IS NOT TRUE)
    OR (
        abs(coalesce(moved.amount, 0) + CASE WHEN dispute.status = 'won' THEN 0 ELSE dispute.amount END)
        > coalesce(moved.rounding, 0)
        AND NOT (moved.id IS NULL AND dispute.status <> 'lost')
    )
""").format(moved=_moved("disputes", "dispute", ["adjustment"]))


def rows_in_default_partition(connection: psycopg.Connection, table: str) -> int:
    """Rows of a monthly table whose month has no partition."""
    return _count(connection, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(SCHEMA, f"{table}_default")))


def charges_with_miscounted_refunds(connection: psycopg.Connection) -> int:
    """Charges whose `amount_refunded` is not the sum of their refunds that neither failed nor were canceled."""
    return _count(connection, _MISCOUNTED_REFUNDS)


def charges_with_mismarked_disputes(connection: psycopg.Connection) -> int:
    """Charges marked `disputed` without a dispute, or with one and not marked."""
    return _count(connection, _MISMARKED_DISPUTES)


def movements_without_source(connection: psycopg.Connection) -> int:
    """Balance transactions that name a charge, refund, dispute or payout that is not there."""
    return _count(connection, _UNFOUNDED_MOVEMENTS)


def movements_unlike_their_source(connection: psycopg.Connection) -> int:
    """Balance transactions for another merchant than their charge's, refund's, dispute's or payout's, or of a currency
    that does not fit: another one needs an exchange rate, and the same one has none."""
    return _count(connection, _MOVEMENTS_UNLIKE_THEIR_SOURCE)


def charges_with_miscounted_movements(connection: psycopg.Connection) -> int:
    """Charges that captured another sum than their ledger rows come to: none, too many, or of another amount.

    An authorization alone moves nothing. Where an exchange rate was applied, a minor unit a row may be rounding.
    """
    return _count(connection, _MISRECORDED_CHARGES)


def refunds_with_miscounted_movements(connection: psycopg.Connection) -> int:
    """Refunds whose ledger rows do not come to what was given back, and succeeded ones that do not name theirs.

    Of a failed or canceled one they come to nothing; one under way may have none yet. Rounding as with charges.
    """
    return _count(connection, _MISRECORDED_REFUNDS)


def charges_unlike_their_intent(connection: psycopg.Connection) -> int:
    """Charges in another currency, or for another merchant, than the payment intent that they are a try of."""
    return _count(connection, _CHARGES_UNLIKE_THEIR_INTENT)


def intents_with_miscounted_receipts(connection: psycopg.Connection) -> int:
    """Payment intents whose `amount_received` is not what their charges captured."""
    return _count(connection, _MISCOUNTED_INTENTS)


def charges_after_their_customer_left(connection: psycopg.Connection) -> int:
    """Charges created later than the `deleted_at` of their customer."""
    return _count(connection, _CHARGES_OF_THE_DELETED)


def invoices_with_miscounted_lines(connection: psycopg.Connection) -> int:
    """Invoices whose `subtotal` is not the sum of their lines, or that have lines in another currency."""
    return _count(connection, _MISCOUNTED_INVOICES)


def fees_with_miscounted_details(connection: psycopg.Connection) -> int:
    """Balance transactions whose fee details do not add up to the fee, or are in another currency.

    Those of imported payments may have a fee without details.
    """
    return _count(connection, _MISCOUNTED_FEES)


def payouts_with_miscounted_movements(connection: psycopg.Connection) -> int:
    """Payouts whose amount is not the net of the movements that name them, or that pay out another's movements.

    A failed or canceled payout keeps its movements: what it gives back is a movement of its own, which a later
    payout pays out. One whose `reconciliation_status` is not_applicable was asked for as an amount, not made of
    movements.
    """
    return _count(connection, _MISCOUNTED_PAYOUTS)


def payouts_without_movement(connection: psycopg.Connection) -> int:
    """Payouts that do not name their own ledger row, or whose rows do not take the amount off the balance.

    Of a failed or canceled one the rows take nothing: it went out and came back (payout_failure, payout_cancel).
    """
    return _count(connection, _UNRECORDED_PAYOUTS)


def disputes_with_wrong_movements(connection: psycopg.Connection) -> int:
    """Disputes whose withdrawal adds or reinstatement takes, whose ledger rows are another's, or whose end is not told.

    A decided dispute has withdrawn its amount, once, and exactly a won one has reinstated it; one under way may have
    withdrawn it. Rounding as with charges.
    """
    return _count(connection, _UNEXPLAINED_DISPUTES)


def _count(connection: psycopg.Connection, query: sql.SQL | sql.Composed) -> int:
    connection.execute("SET LOCAL statement_timeout = '5min'")
    ((count,),) = connection.execute(query).fetchall()
    return int(count)
