"""What falls due after payments: captures, refunds, disputes and their ends, reviews, payouts.

Each step finds something that is due, then acts on it in a transaction that checks it is still so: two workers,
or a retry after a lost answer, never do it twice.
"""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from stripe_platform.oltp.fees import DISPUTE_FEE
from stripe_platform.oltp.simulator.live_payments import captured_movement
from stripe_platform.oltp.simulator.live_rows import Moment, Overtaken, Row, changed_one, fee_of, insert
from stripe_platform.oltp.simulator.payouts import payable
from stripe_platform.oltp.simulator.roster import Roster

Found = tuple[Any, ...]
Find = Callable[[psycopg.Connection, random.Random, Roster], Found | None]
Act = Callable[[psycopg.Connection, random.Random, Moment, Found], None]

_MOVEMENTS_OF_A_PAYOUT = 500
_ARRIVES_AFTER = timedelta(days=2)

_TO_CAPTURE = """
SELECT id, merchant_id, amount, currency, latest_charge_id, latest_charge_created
FROM payments.payment_intents
WHERE status = 'requires_capture' AND latest_charge_id IS NOT NULL
ORDER BY created LIMIT 20
"""
_SETTLED = """
SELECT id, created, merchant_id, amount_captured - amount_refunded, currency
FROM payments.charges
WHERE merchant_id = %s AND amount_captured > amount_refunded AND NOT disputed AND created > now() - INTERVAL '120 days'
ORDER BY created DESC LIMIT 20
"""
_OPEN_DISPUTES = """
SELECT dispute.id, charge.merchant_id, dispute.amount, dispute.currency
FROM payments.disputes AS dispute
INNER JOIN payments.charges AS charge ON charge.id = dispute.charge_id AND charge.created = dispute.charge_created
WHERE dispute.status IN ('needs_response', 'under_review')
ORDER BY dispute.created LIMIT 20
"""
_OPEN_REVIEWS = """
SELECT review.id, charge.merchant_id
FROM payments.reviews AS review
INNER JOIN payments.charges AS charge ON charge.id = review.charge_id AND charge.created = review.charge_created
WHERE review.open
ORDER BY review.created LIMIT 20
"""
_TO_PAY_OUT = """
SELECT id, created, net
FROM payments.balance_transactions
WHERE merchant_id = %s AND currency = %s AND payout_id IS NULL AND available_on <= %s AND type <> 'payout'
ORDER BY available_on, id LIMIT %s
FOR UPDATE SKIP LOCKED
"""
_ARRIVING = """
SELECT id, merchant_id, amount, currency
FROM payments.payouts
WHERE status IN ('pending', 'in_transit') AND arrival_date <= %s
ORDER BY arrival_date LIMIT 20
"""


def _one(rows: list[Found], chance: random.Random) -> Found | None:
    return chance.choice(rows) if rows else None


def _due(query: str) -> Find:
    def find(connection: psycopg.Connection, chance: random.Random, roster: Roster) -> Found | None:
        return _one(connection.execute(query.encode()).fetchall(), chance)

    return find


find_to_capture = _due(_TO_CAPTURE)
find_open_dispute = _due(_OPEN_DISPUTES)
find_open_review = _due(_OPEN_REVIEWS)


def find_settled(connection: psycopg.Connection, chance: random.Random, roster: Roster) -> Found | None:
    """A charge whose money is still with its merchant."""
    merchant = chance.choice(roster.merchants)
    return _one(connection.execute(_SETTLED, [merchant.id]).fetchall(), chance)


def capture(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """Take what was authorized."""
    intent_id, merchant_id, amount, currency, charge_id, charge_created = found
    taken = connection.execute(
        "UPDATE payments.charges SET captured = TRUE, amount_captured = amount "
        "WHERE id = %s AND created = %s AND paid AND NOT captured",
        [charge_id, charge_created],
    )
    changed_one(taken)
    intent = connection.execute(
        "UPDATE payments.payment_intents SET status = 'succeeded', amount_received = amount, amount_capturable = 0 "
        "WHERE id = %s AND status = 'requires_capture'",
        [intent_id],
    )
    changed_one(intent)
    movement = captured_movement(moment, merchant_id, amount, currency, charge_id)
    _ledger(connection, movement)
    told = {"status": "succeeded", "amount": amount}
    _tell(connection, moment.witness("charge.captured", "charge", charge_id, merchant_id, **told))
    _tell(connection, moment.event("payment_intent.succeeded", "payment_intent", intent_id, merchant_id, **told))


def refund(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """Give a charge back: all that is left of it, or one step of its currency."""
    charge_id, charge_created, merchant_id, left, currency = _still_settled(connection, found)
    amount = left
    if chance.random() < 0.3:
        ((multiple,),) = connection.execute(
            "SELECT charge_multiple FROM payments.currencies WHERE code = %s", [currency]
        ).fetchall()
        amount = max(left // 3 // multiple, 1) * multiple if left >= multiple else left
    refund_id = uuid7()
    movement = moment.movement(
        merchant_id, -amount, currency, type="refund", reporting_category="refund", source_type="refund",
        source_id=refund_id,
    )  # fmt: skip
    insert(connection, "balance_transactions", movement)
    row = {
        "id": refund_id,
        "charge_id": charge_id,
        "charge_created": charge_created,
        "balance_transaction_id": movement["id"],
        "balance_transaction_created": movement["created"],
        "amount": amount,
        "currency": currency,
        "status": "succeeded",
        "reason": "requested_by_customer",
        "created": moment.at,
    }
    insert(connection, "refunds", row)
    _tell(connection, moment.witness("refund.created", "refund", refund_id, merchant_id, amount=amount))
    _tell(connection, moment.event("charge.refunded", "charge", charge_id, merchant_id, amount=amount))


def dispute(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """The card holder contests a charge: the money is withdrawn at once."""
    charge_id, charge_created, merchant_id, amount, currency = _still_settled(connection, found)
    row = {
        "id": uuid7(),
        "charge_id": charge_id,
        "charge_created": charge_created,
        "amount": amount,
        "currency": currency,
        "status": "needs_response",
        "reason": chance.choice(("fraudulent", "fraudulent", "product_not_received", "general")),
        "evidence_due_by": moment.at + timedelta(days=14),
        "created": moment.at,
    }
    insert(connection, "disputes", row)
    _dispute_movement(connection, moment, (row["id"], merchant_id, amount, currency), "withdrawn")
    _tell(connection, moment.witness("charge.dispute.created", "dispute", row["id"], merchant_id, amount=amount))


def close_dispute(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """A dispute is won, and the money comes back, or lost."""
    dispute_id, merchant_id, amount, _ = found
    won = chance.random() < 0.35
    closed = connection.execute(
        "UPDATE payments.disputes SET status = %s WHERE id = %s AND status IN ('needs_response', 'under_review')",
        ["won" if won else "lost", dispute_id],
    )
    changed_one(closed)
    if won:
        _dispute_movement(connection, moment, found, "reinstated")
    event = moment.witness(
        "charge.dispute.closed", "dispute", dispute_id, merchant_id, status="won" if won else "lost", amount=amount
    )
    _tell(connection, event)


def close_review(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """A person has looked at the charge."""
    review_id, merchant_id = found
    closed = connection.execute(
        "UPDATE payments.reviews SET open = FALSE, closed_reason = 'approved', closed_at = %s WHERE id = %s AND open",
        [moment.at, review_id],
    )
    changed_one(closed)
    _tell(connection, moment.witness("review.closed", "review", review_id, merchant_id, status="approved"))


def find_merchant(connection: psycopg.Connection, chance: random.Random, roster: Roster) -> Found | None:
    """Any merchant."""
    merchant = chance.choice(roster.merchants)
    return (merchant.id, merchant.currency, merchant.payout_multiple)


def pay_out(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """Pay out what is available, the oldest first; nothing when a merchant owes."""
    merchant_id, currency, multiple = found
    due = connection.execute(_TO_PAY_OUT, [merchant_id, currency, moment.at, _MOVEMENTS_OF_A_PAYOUT]).fetchall()
    count = payable([net for *_, net in due], multiple)
    if not count:
        raise Overtaken
    amount = sum(net for *_, net in due[:count])
    payout_id = uuid7()
    movement = moment.movement(
        merchant_id, -amount, currency, type="payout", reporting_category="payout", source_type="payout",
        source_id=payout_id,
    )  # fmt: skip
    insert(connection, "payouts", _payout(moment, payout_id, movement))
    insert(connection, "balance_transactions", movement)
    connection.execute(
        "UPDATE payments.balance_transactions AS movement SET payout_id = %s, status = 'available' "
        "FROM unnest(%s::uuid[], %s::timestamptz[]) AS paid (id, created) "
        "WHERE movement.id = paid.id AND movement.created = paid.created",
        [payout_id, [id_ for id_, *_ in due[:count]], [created for _, created, _ in due[:count]]],
    )
    _tell(connection, moment.witness("payout.created", "payout", payout_id, merchant_id, amount=amount))


def _payout(moment: Moment, payout_id: UUID, movement: Row) -> Row:
    return {
        "id": payout_id,
        "merchant_id": movement["merchant_id"],
        "balance_transaction_id": movement["id"],
        "balance_transaction_created": movement["created"],
        "amount": -movement["amount"],
        "currency": movement["currency"],
        "status": "in_transit",
        "arrival_date": (moment.at + _ARRIVES_AFTER).date(),
        "created": moment.at,
    }


def find_arriving(connection: psycopg.Connection, chance: random.Random, roster: Roster) -> Found | None:
    """A payout that the bank confirms today."""
    return _one(connection.execute(_ARRIVING, [Moment().at.date()]).fetchall(), chance)


def arrive(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """The bank account has the money."""
    payout_id, merchant_id, amount, _ = found
    paid = connection.execute(
        "UPDATE payments.payouts SET status = 'paid', reconciliation_status = 'completed' "
        "WHERE id = %s AND status IN ('pending', 'in_transit')",
        [payout_id],
    )
    changed_one(paid)
    _tell(connection, moment.witness("payout.paid", "payout", payout_id, merchant_id, status="paid", amount=amount))


def _still_settled(connection: psycopg.Connection, found: Found) -> Found:
    """The charge as it is now, locked as the triggers of refunds and disputes lock it."""
    now = connection.execute(
        "SELECT id, created, merchant_id, amount_captured - amount_refunded, currency FROM payments.charges "
        "WHERE id = %s AND created = %s AND amount_captured > amount_refunded AND NOT disputed FOR NO KEY UPDATE",
        found[:2],
    ).fetchone()
    if now is None:
        raise Overtaken
    return now


def _dispute_movement(connection: psycopg.Connection, moment: Moment, of: Found, kind: str) -> None:
    dispute_id, merchant_id, amount, currency = of
    withdrawn = kind == "withdrawn"
    movement = moment.movement(
        merchant_id,
        -amount if withdrawn else amount,
        currency,
        fee=DISPUTE_FEE if withdrawn else 0,
        type="adjustment",
        reporting_category="dispute" if withdrawn else "dispute_reversal",
        source_type="dispute",
        source_id=dispute_id,
    )
    _ledger(connection, movement)
    row = {
        "dispute_id": dispute_id,
        "kind": kind,
        "balance_transaction_id": movement["id"],
        "balance_transaction_created": movement["created"],
        "created": moment.at,
    }
    insert(connection, "dispute_balance_transactions", row)
    type_ = "charge.dispute.funds_withdrawn" if withdrawn else "charge.dispute.funds_reinstated"
    _tell(connection, moment.event(type_, "dispute", dispute_id, merchant_id, amount=amount))


def _ledger(connection: psycopg.Connection, movement: Row) -> None:
    insert(connection, "balance_transactions", movement)
    if movement["fee"]:
        insert(connection, "fee_details", fee_of(movement))


def _tell(connection: psycopg.Connection, event: Row) -> None:
    insert(connection, "events", event)
