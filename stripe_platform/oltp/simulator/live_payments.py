"""A payment as it happens: the intent, then each try of the card, every one a transaction of its own."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from stripe_platform.oltp.fees import charge_fee
from stripe_platform.oltp.simulator.live_rows import AVAILABLE_AFTER_DAYS, Moment, Row, fee_of, insert
from stripe_platform.oltp.simulator.payment_rows import MODEL_VERSION
from stripe_platform.oltp.simulator.payments import ELEVATED, HIGHEST
from stripe_platform.oltp.simulator.roster import Merchant, Payer

_APPROVED = 0.89
_TRIES_AGAIN = 0.55
_ABANDONED = 0.03
_BY_HAND = 0.05
_ODD = 0.015
_DECLINES = ("insufficient_funds", "insufficient_funds", "do_not_honor", "generic_decline", "expired_card")


@dataclass(frozen=True)
class Transaction:
    """One transaction that can be tried again: its rows have their keys before it begins.

    When its answer is lost, it is looked up: an intent by its merchant's idempotency key, another by its witness.
    """

    kind: str
    moment: Moment
    rows: tuple[tuple[str, Row], ...] = ()
    update: tuple[str, tuple[object, ...]] | None = None

    def write(self, connection: psycopg.Connection) -> None:
        """Everything in one round trip; commits."""
        with connection.pipeline(), connection.transaction():
            for table, row in self.rows:
                insert(connection, table, row)
            if self.update is not None:
                connection.execute(self.update[0].encode(), self.update[1])

    def is_there(self, connection: psycopg.Connection) -> bool:
        """Whether it has committed."""
        for table, row in self.rows:
            if table == "payment_intents":
                query = "SELECT FROM payments.payment_intents WHERE merchant_id = %s AND idempotency_key = %s"
                found = connection.execute(query, [row["merchant_id"], row["idempotency_key"]]).fetchone()
                return found is not None
        return self.moment.is_there(connection)


@dataclass(frozen=True)
class LivePayment:
    """One payment, decided when it begins: who pays whom, and how often the card is declined."""

    payer: Payer
    merchant: Merchant
    amount: int
    chance: random.Random
    intent_id: UUID = field(default_factory=uuid7)

    def transactions(self) -> Iterator[Transaction]:
        """The intent, then the tries, each with the time at which it is asked for."""
        by_hand = self.chance.random() < _BY_HAND
        yield self._intent(Moment(), by_hand)
        if self.chance.random() < _ABANDONED:
            return
        for _ in range(3):
            approved = self.chance.random() < _APPROVED
            yield self._charge(Moment(), approved, by_hand)
            if approved or self.chance.random() > _TRIES_AGAIN:
                return

    def _intent(self, moment: Moment, by_hand: bool) -> Transaction:
        intent = {
            "id": self.intent_id,
            "merchant_id": self.merchant.id,
            "customer_id": self.payer.customer_id,
            "payment_method_id": self.payer.method_id,
            "amount": self.amount,
            "currency": self.merchant.currency,
            "status": "requires_payment_method",
            "capture_method": "manual" if by_hand else "automatic",
            "idempotency_key": f"live_{self.intent_id.hex}",
            "created": moment.at,
        }
        event = moment.witness(
            "payment_intent.created", "payment_intent", self.intent_id, self.merchant.id, **self._money()
        )
        event["idempotency_key"] = intent["idempotency_key"]
        return Transaction("payment_intent", moment, (("payment_intents", intent), ("events", event)))

    def _charge(self, moment: Moment, approved: bool, by_hand: bool) -> Transaction:
        odd = self.chance.random() < _ODD
        score = self.chance.randint(55, 95) if odd else self.chance.randint(0, 40)
        approved = approved and score < HIGHEST
        captured = self.amount if approved and not by_hand else 0
        decline = None if approved else "fraudulent" if score >= HIGHEST else self.chance.choice(_DECLINES)
        charge = self._charge_row(moment, captured, decline)
        rows: list[tuple[str, Row]] = [("charges", charge), ("charge_outcomes", _outcome(charge, score))]
        if captured:
            movement = captured_movement(moment, self.merchant.id, captured, self.merchant.currency, charge["id"])
            rows += [("balance_transactions", movement), ("fee_details", fee_of(movement))]
        if approved and score >= ELEVATED:
            rows += _review(moment, charge)
        status = "succeeded" if captured else "requires_capture" if approved else "requires_payment_method"
        happened = "payment_intent.succeeded" if captured else "payment_intent.payment_failed"
        if not (approved and by_hand):
            rows.append(("events", self._event(moment, happened, "payment_intent", self.intent_id, status)))
        told = self._money() | {"status": charge["status"]}
        witness = moment.witness(f"charge.{charge['status']}", "charge", charge["id"], self.merchant.id, **told)
        return Transaction(
            "charge",
            moment,
            (*rows, ("events", witness)),
            update=self._update(charge, status, captured, self.amount if status == "requires_capture" else 0),
        )

    def _charge_row(self, moment: Moment, captured: int, decline: str | None) -> Row:
        number = self.chance.randint(1, 254)
        return {
            "id": uuid7(),
            "merchant_id": self.merchant.id,
            "customer_id": self.payer.customer_id,
            "payment_method_id": self.payer.method_id,
            "payment_intent_id": self.intent_id,
            "amount": self.amount,
            "amount_captured": captured,
            "currency": self.merchant.currency,
            "status": "failed" if decline else "succeeded",
            "captured": captured > 0,
            "paid": decline is None,
            "failure_code": {"expired_card": "expired_card"}.get(decline, "card_declined") if decline else None,
            "decline_code": decline,
            "ip": f"198.51.100.{number}",
            "device_id": f"device_{self.payer.customer_id.hex[-16:]}",
            "created": moment.at,
        }

    def _update(self, charge: Row, status: str, received: int, capturable: int) -> tuple[str, tuple[object, ...]]:
        return (
            "UPDATE payments.payment_intents SET status = %s, amount_received = %s, amount_capturable = %s, "
            "latest_charge_id = %s, latest_charge_created = %s WHERE id = %s",
            (status, received, capturable, charge["id"], charge["created"], self.intent_id),
        )

    def _money(self) -> dict[str, object]:
        return {"amount": self.amount, "currency": self.merchant.currency}

    def _event(self, moment: Moment, type_: str, object_type: str, object_id: UUID, status: str) -> Row:
        return moment.event(type_, object_type, object_id, self.merchant.id, status=status, **self._money())


def captured_movement(moment: Moment, merchant_id: UUID, amount: int, currency: str, charge_id: UUID) -> Row:
    """The ledger row of a captured charge."""
    return moment.movement(
        merchant_id,
        amount,
        currency,
        fee=charge_fee(amount),
        type="charge",
        reporting_category="charge",
        status="pending",
        available_on=_available_on(moment.at),
        source_type="charge",
        source_id=charge_id,
    )


def _available_on(at: datetime) -> datetime:
    return at + timedelta(days=AVAILABLE_AFTER_DAYS)


def _outcome(charge: Row, score: int) -> Row:
    blocked = score >= HIGHEST
    looked_at = charge["paid"] and score >= ELEVATED
    type_ = "blocked" if blocked else "issuer_declined" if not charge["paid"] else "authorized"
    network = "not_sent_to_network" if blocked else "approved_by_network" if charge["paid"] else "declined_by_network"
    return {
        "charge_id": charge["id"],
        "charge_created": charge["created"],
        "type": "manual_review" if looked_at else type_,
        "network_status": network,
        "reason": "highest_risk_level" if blocked else charge["decline_code"],
        "risk_level": "highest" if blocked else "elevated" if score >= ELEVATED else "normal",
        "risk_score": score,
        "model_version": MODEL_VERSION,
        "created": charge["created"],
    }


def _review(moment: Moment, charge: Row) -> list[tuple[str, Row]]:
    review = {
        "id": uuid7(),
        "charge_id": charge["id"],
        "charge_created": charge["created"],
        "opened_reason": "rule",
        "ip": charge["ip"],
        "created": moment.at,
    }
    opened = moment.event("review.opened", "review", review["id"], charge["merchant_id"], status="open")
    return [("reviews", review), ("events", opened)]
