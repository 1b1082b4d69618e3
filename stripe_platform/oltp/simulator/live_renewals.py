"""Subscriptions that come to the end of their period while a live run goes on: renewed, or ended as was wished."""

import random
from datetime import datetime
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from stripe_platform.oltp.simulator.live_payments import captured_movement
from stripe_platform.oltp.simulator.live_rows import Moment, Row, changed_one, fee_of, insert
from stripe_platform.oltp.simulator.live_steps import Found
from stripe_platform.oltp.simulator.roster import Roster

_DUE = """
SELECT item.id, item.current_period_end, item.price_id, price.unit_amount, price.recurring_interval,
    subscription.id, subscription.merchant_id, subscription.customer_id, subscription.default_payment_method_id,
    subscription.currency, subscription.cancel_at
FROM payments.subscription_items AS item
INNER JOIN payments.subscriptions AS subscription ON subscription.id = item.subscription_id
INNER JOIN payments.prices AS price ON price.id = item.price_id
WHERE item.current_period_end <= now() AND subscription.status IN ('trialing', 'active')
ORDER BY item.current_period_end LIMIT 20
"""


def find_renewal(connection: psycopg.Connection, chance: random.Random, roster: Roster) -> Found | None:
    """A subscription whose period is over."""
    due = connection.execute(_DUE).fetchall()
    return chance.choice(due) if due else None


def renew(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """Bill the next period and take the money, or end the subscription when it was to be canceled then."""
    item_id, over, price_id, amount, interval, subscription_id, merchant_id, *_, cancel_at = found
    if cancel_at is not None and cancel_at <= over:
        _end(connection, moment, subscription_id, merchant_id, over)
        return
    moved = connection.execute(
        f"UPDATE payments.subscription_items SET current_period_start = current_period_end, "
        f"current_period_end = current_period_end + INTERVAL '1 {interval}' "
        "WHERE id = %s AND current_period_end = %s RETURNING current_period_start, current_period_end",
        [item_id, over],
    )
    changed_one(moved)
    ((begins, ends),) = moved.fetchall()
    connection.execute("UPDATE payments.subscriptions SET status = 'active' WHERE id = %s", [subscription_id])
    invoice = _invoice(moment, found, amount)
    invoice |= {"period_start": begins, "period_end": ends}
    insert(connection, "invoices", invoice)
    line = {
        "id": uuid7(),
        "invoice_id": invoice["id"],
        "subscription_item_id": item_id,
        "price_id": price_id,
        "amount": amount,
        "currency": invoice["currency"],
        "description": "Subscription",
        "period_start": begins,
        "period_end": ends,
        "created": moment.at,
    }
    insert(connection, "invoice_lines", line)
    if amount:
        _collect(connection, moment, invoice, found[8])
    insert(connection, "events", moment.witness("invoice.paid", "invoice", invoice["id"], merchant_id, amount=amount))


def _end(
    connection: psycopg.Connection, moment: Moment, subscription_id: UUID, merchant_id: UUID, at: datetime
) -> None:
    ended = connection.execute(
        "UPDATE payments.subscriptions SET status = 'canceled', ended_at = %s WHERE id = %s AND status <> 'canceled'",
        [at, subscription_id],
    )
    changed_one(ended)
    event = moment.witness(
        "customer.subscription.deleted",
        "subscription",
        subscription_id,
        merchant_id,
        status="canceled",
    )
    insert(connection, "events", event)


def _invoice(moment: Moment, found: Found, amount: int) -> Row:
    _, _, _, _, _, subscription_id, merchant_id, customer_id, _, currency, _ = found
    invoice_id = uuid7()
    return {
        "id": invoice_id,
        "merchant_id": merchant_id,
        "customer_id": customer_id,
        "subscription_id": subscription_id,
        "number": f"LIVE-{invoice_id.hex[-12:].upper()}",
        "status": "paid",
        "billing_reason": "subscription_cycle",
        "currency": currency,
        "subtotal": amount,
        "total": amount,
        "amount_due": amount,
        "amount_paid": amount,
        "finalized_at": moment.at,
        "paid_at": moment.at,
        "created": moment.at,
    }


def _collect(connection: psycopg.Connection, moment: Moment, invoice: Row, method_id: object) -> None:
    """The intent, the charge and the movement of a paid invoice."""
    merchant_id, customer_id, amount, currency = (
        invoice[name] for name in ("merchant_id", "customer_id", "total", "currency")
    )
    who = {"merchant_id": merchant_id, "customer_id": customer_id, "payment_method_id": method_id}
    intent_id, charge_id = uuid7(), uuid7()
    intent = {
        "id": intent_id,
        **who,
        "invoice_id": invoice["id"],
        "amount": amount,
        "amount_received": amount,
        "currency": currency,
        "status": "succeeded",
        "setup_future_usage": "off_session",
        "idempotency_key": f"renewal_{invoice['id'].hex}",
        "latest_charge_id": charge_id,
        "latest_charge_created": moment.at,
        "created": moment.at,
    }
    charge = {
        "id": charge_id,
        **who,
        "payment_intent_id": intent_id,
        "amount": amount,
        "amount_captured": amount,
        "currency": currency,
        "status": "succeeded",
        "captured": True,
        "paid": True,
        "created": moment.at,
    }
    outcome = {
        "charge_id": charge_id,
        "charge_created": moment.at,
        "type": "authorized",
        "network_status": "approved_by_network",
        "risk_level": "normal",
        "risk_score": 5,
        "created": moment.at,
    }
    movement = captured_movement(moment, merchant_id, amount, currency, charge_id)
    rows = {"payment_intents": intent, "charges": charge, "charge_outcomes": outcome, "balance_transactions": movement}
    for table, row in (rows | {"fee_details": fee_of(movement)}).items():
        insert(connection, table, row)
    insert(connection, "events", moment.event("charge.succeeded", "charge", charge_id, merchant_id, amount=amount))
