"""What must be true of the payments tables although no constraint can say so: each function counts what is not."""

import psycopg
from psycopg import sql

from stripe_platform.oltp.tables import SCHEMA

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
WHERE movement.source_type IN ('charge', 'refund', 'dispute')
    AND coalesce(charge.id, refund.id, dispute.id) IS NULL
""")


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
    """Balance transactions that name a charge, refund or dispute that is not there."""
    return _count(connection, _UNFOUNDED_MOVEMENTS)


def _count(connection: psycopg.Connection, query: sql.SQL | sql.Composed) -> int:
    connection.execute("SET LOCAL statement_timeout = '5min'")
    ((count,),) = connection.execute(query).fetchall()
    return int(count)
