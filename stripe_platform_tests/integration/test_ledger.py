"""What no constraint can say of the money: each check is seen to fail, alone, on the damage that it is there for."""

import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from stripe_platform.oltp import checks, ledger
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.test_oltp import Connection, NewDatabase, insert

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MONEY_CHECKS = (
    checks.charges_refunded_equals_refunds,
    checks.charges_disputed_equals_disputes,
    checks.movements_have_their_source,
    checks.movements_agree_with_their_source,
    checks.captured_charges_are_in_the_ledger,
    checks.refunds_are_in_the_ledger,
    checks.charges_agree_with_their_intent,
    checks.amount_received_was_captured,
    checks.deleted_customers_pay_no_more,
    checks.invoice_lines_add_up_to_the_subtotal,
    checks.fee_details_add_up_to_the_fee,
    checks.payouts_are_their_movements,
    checks.payouts_are_in_the_ledger,
    checks.disputes_have_their_movements,
)
# Each check asks one of them, by itself.
COUNTS = [
    count
    for name, count in inspect.getmembers(ledger, inspect.isfunction)
    if count.__module__ == ledger.__name__
    and not name.startswith("_")
    and len(inspect.signature(count).parameters) == 1
]
MERCHANT, OTHER_MERCHANT, CUSTOMER, LEFT_CUSTOMER = (uuid.UUID(int=n, version=4) for n in range(1, 5))
INVOICE, INTENT, WON, LOST, OPEN = (uuid.UUID(int=n, version=4) for n in range(11, 16))
PAID, FAILED, MANUAL = (uuid.UUID(int=n, version=4) for n in range(21, 24))


def key(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, name)


def insert_parties(connection: Connection) -> None:
    for merchant in (MERCHANT, OTHER_MERCHANT):
        values = {"business_name": "Birch Books", "mcc": "5942", "country": "DE", "default_currency": "eur"}
        insert(connection, "merchants", id=merchant, **values)
    insert(connection, "customers", id=CUSTOMER, merchant_id=MERCHANT, created=NOW)
    left = NOW + timedelta(days=1)
    insert(connection, "customers", id=LEFT_CUSTOMER, merchant_id=MERCHANT, created=NOW, deleted_at=left)


def insert_charge(connection: Connection, name: str, **values: object) -> None:
    charge = {
        "merchant_id": MERCHANT,
        "customer_id": CUSTOMER,
        "amount": 1000,
        "amount_captured": 1000,
        "currency": "eur",
        "status": "succeeded",
        "captured": True,
        "paid": True,
        "created": NOW,
    }
    insert(connection, "charges", id=key(name), **(charge | values))


def insert_movement(connection: Connection, name: str, source: tuple[str, uuid.UUID], **values: object) -> None:
    movement: dict[str, object] = {
        "merchant_id": MERCHANT,
        "amount": 1000,
        "fee": 0,
        "currency": "eur",
        "type": "charge",
        "reporting_category": "charge",
        "status": "available",
        "available_on": NOW,
        "source_type": source[0],
        "source_id": source[1],
        "created": NOW,
    } | values
    net = {"net": int(str(movement["amount"])) - int(str(movement["fee"]))}
    insert(connection, "balance_transactions", id=key(name), **(net | movement))


def insert_billing(connection: Connection) -> None:
    """An invoice of two lines, paid by an intent whose first try failed."""
    invoice = {"merchant_id": MERCHANT, "customer_id": CUSTOMER, "currency": "eur", "billing_reason": "manual"}
    invoice |= {"subtotal": 900, "tax": 100, "total": 1000, "amount_due": 1000, "status": "draft"}
    insert(connection, "invoices", id=INVOICE, period_start=NOW, period_end=NOW, **invoice)
    for name, amount in (("goods", 1000), ("credit", -100)):
        period = {"period_start": NOW, "period_end": NOW}
        insert(connection, "invoice_lines", id=key(name), invoice_id=INVOICE, amount=amount, currency="eur", **period)
    intent = {"merchant_id": MERCHANT, "customer_id": CUSTOMER, "amount": 1000, "currency": "eur"}
    intent |= {"status": "succeeded", "amount_received": 1000, "invoice_id": INVOICE}
    insert(connection, "payment_intents", id=INTENT, **intent)
    no_money = {"amount_captured": 0, "captured": False}
    failed = no_money | {"status": "failed", "paid": False, "failure_code": "card_declined"}
    insert_charge(connection, "declined", payment_intent_id=INTENT, **failed)
    insert_charge(connection, "sale", payment_intent_id=INTENT)
    insert_charge(connection, "authorized", **no_money)


def insert_disputes(connection: Connection) -> None:
    """A won, a lost and an open dispute, each of a charge of its own."""
    for dispute, status in ((WON, "won"), (LOST, "lost"), (OPEN, "needs_response")):
        insert_charge(connection, status, disputed=True)
        charge = {"charge_id": key(status), "charge_created": NOW}
        values = {"amount": 1000, "currency": "eur", "status": status, "reason": "fraudulent"}
        insert(connection, "disputes", id=dispute, **charge, **values)
        insert_movement(connection, f"charge {status}", ("charge", key(status)), payout_id=PAID)
    for dispute, kind, amount in ((WON, "withdrawn", -1000), (WON, "reinstated", 1000), (LOST, "withdrawn", -1000)):
        name = f"{kind} {dispute}"
        values = {"amount": amount, "type": "adjustment", "reporting_category": "dispute", "payout_id": PAID}
        insert_movement(connection, name, ("dispute", dispute), **values)
        insert_link(connection, dispute, kind, name)


def insert_link(connection: Connection, dispute: uuid.UUID, kind: str, movement: str) -> None:
    row = {"balance_transaction_id": key(movement), "balance_transaction_created": NOW}
    insert(connection, "dispute_balance_transactions", dispute_id=dispute, kind=kind, **row)


def insert_refund(connection: Connection, name: str, status: str, movements: Mapping[str, int]) -> None:
    """A refund of 100, of a charge of its own, with the movements of these types and amounts."""
    insert_charge(connection, f"charge {name}", amount_refunded=0 if status in ("failed", "canceled") else 100)
    insert_movement(connection, f"charge {name}", ("charge", key(f"charge {name}")))
    for type_, amount in movements.items():
        values = {"amount": amount, "type": type_, "reporting_category": type_}
        insert_movement(connection, f"{type_} {name}", ("refund", key(name)), **values)
    own = {"balance_transaction_id": key(f"refund {name}"), "balance_transaction_created": NOW} if movements else {}
    of = {"charge_id": key(f"charge {name}"), "charge_created": NOW}
    insert(connection, "refunds", id=key(name), amount=100, currency="eur", status=status, **of, **own)


def insert_refunds(connection: Connection) -> None:
    insert_refund(connection, "given back", "succeeded", {"refund": -100})
    insert_refund(connection, "did not arrive", "failed", {"refund": -100, "refund_failure": 100})
    insert_refund(connection, "on its way", "pending", {"refund": -100})
    insert_refund(connection, "asked for", "pending", {})
    insert_refund(connection, "called off", "canceled", {})


def insert_conversions(connection: Connection) -> None:
    """10.00 usd at 0.9 and 1,000 jpy at 0.00627 become euros, and 1.00 eur at 159.49 becomes 159 jpy, rounded."""
    for name, currency, rate, settled, amount in (
        ("dollars", "usd", "0.9", "eur", 900),
        ("yen", "jpy", "0.00627", "eur", 627),
        ("to yen", "eur", "159.49", "jpy", 1595),
    ):
        insert_charge(connection, name, currency=currency)
        values = {"amount": amount, "currency": settled, "exchange_rate": rate}
        insert_movement(connection, name, ("charge", key(name)), **values)


def insert_imported(connection: Connection) -> None:
    """A payment of a file, and its dispute: their fees have no details."""
    insert_charge(connection, "imported", disputed=True)
    of = {"charge_id": key("imported"), "charge_created": NOW}
    insert(connection, "imported_payments", payment_ref="1", content_hash=b"x" * 32, **of)
    insert_movement(connection, "imported", ("charge", key("imported")), fee=59)
    reported = {"amount": 1000, "currency": "eur", "status": "needs_response", "reason": "fraudulent"}
    insert(connection, "disputes", id=key("reported"), **of, **reported)
    values = {"amount": -1000, "fee": 1500, "type": "adjustment", "reporting_category": "dispute"}
    insert_movement(connection, "reported", ("dispute", key("reported")), **values)


def insert_payout(connection: Connection, payout: uuid.UUID, amount: int, **values: object) -> None:
    """A payout and its own ledger row."""
    own = {"balance_transaction_id": key(f"own {payout}"), "balance_transaction_created": NOW}
    row = own | {"merchant_id": MERCHANT, "amount": amount, "currency": "eur", "arrival_date": NOW, "status": "paid"}
    insert(connection, "payouts", id=payout, **(row | values))
    ledger = {"amount": -amount, "type": "payout", "reporting_category": "payout"}
    insert_movement(connection, f"own {payout}", ("payout", payout), **ledger)


def insert_money_that_adds_up(connection: Connection) -> None:
    insert_parties(connection)
    insert_billing(connection)
    # Three disputed charges, the movements of two disputes, the sale less its fee, what the failed payout gave back.
    insert_payout(connection, PAID, 3000 - 1000 + 950 + 500)
    insert_payout(connection, FAILED, 500, status="failed", failure_code="account_closed")
    insert_payout(connection, MANUAL, 70, automatic=False, reconciliation_status="not_applicable")
    insert_disputes(connection)
    insert_movement(connection, "sale", ("charge", key("sale")), fee=50, payout_id=PAID)
    for part, amount in (("stripe_fee", 40), ("tax", 10)):
        row = {"balance_transaction_id": key("sale"), "balance_transaction_created": NOW}
        insert(connection, "fee_details", id=key(part), amount=amount, currency="eur", type=part, **row)
    insert_charge(connection, "earlier", amount=500, amount_captured=500)
    insert_movement(connection, "earlier", ("charge", key("earlier")), amount=500, payout_id=FAILED)
    back = {"amount": 500, "type": "payout_failure", "reporting_category": "payout_reversal", "payout_id": PAID}
    insert_movement(connection, "paid back", ("payout", FAILED), **back)
    insert_charge(connection, "in parts")
    for part, amount in (("first part", 400), ("second part", 600)):
        insert_movement(connection, part, ("charge", key("in parts")), amount=amount)
    insert_refunds(connection)
    insert_conversions(connection)
    insert_imported(connection)
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.fixture(scope="module")
def database(new_database: NewDatabase) -> Settings:
    settings = new_database()
    migrate(settings)
    with connect(settings) as connection:
        insert_money_that_adds_up(connection)
    return settings


@pytest.fixture
def connection(database: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """One transaction for the damage and for the checks, rolled back."""
    with connect(database) as connection:
        monkeypatch.setattr(checks, "connect", lambda settings: nullcontext(connection))
        yield connection
        connection.rollback()


def failing(connection: Connection) -> list[str]:
    return [count.__name__ for count in COUNTS if count(connection)]


def passes(check: dg.AssetChecksDefinition, settings: Settings) -> bool:
    verdict = check(settings)
    assert isinstance(verdict, dg.AssetCheckResult)
    return verdict.passed


def test_money_that_adds_up_passes_every_check(database: Settings, connection: Connection) -> None:
    assert failing(connection) == []
    assert all(passes(check, database) for check in MONEY_CHECKS)


def sql(statement: str, *values: object) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        assert connection.execute(statement.encode(), values).rowcount == 1

    return run


def sale_in_the_ledger_goes(connection: Connection) -> None:
    sql("UPDATE payments.balance_transactions SET source_type = NULL, source_id = NULL WHERE id = %s", key("sale"))(
        connection
    )


def sale_twice_in_the_ledger(connection: Connection) -> None:
    insert_movement(connection, "again", ("charge", key("sale")))


def refund_twice_in_the_ledger(connection: Connection) -> None:
    values = {"amount": -100, "type": "refund", "reporting_category": "refund"}
    insert_movement(connection, "again", ("refund", key("given back")), **values)


def refund_that_was_called_off_in_the_ledger(connection: Connection) -> None:
    values = {"amount": -100, "type": "refund", "reporting_category": "refund"}
    insert_movement(connection, "given nonetheless", ("refund", key("called off")), **values)


def dispute_withdrawn_twice(connection: Connection) -> None:
    values = {"amount": -1000, "type": "adjustment", "reporting_category": "dispute"}
    insert_movement(connection, "again", ("dispute", LOST), **values)


def charge_after_the_customer_left(connection: Connection) -> None:
    late = NOW + timedelta(days=1, microseconds=1)
    insert_charge(connection, "late", customer_id=LEFT_CUSTOMER, created=late, amount_captured=0, captured=False)


def movement_of_another_merchant_is_paid_out(connection: Connection) -> None:
    """It comes to nothing in the sum."""
    values = {"amount": 0, "type": "adjustment", "source_type": None, "source_id": None}
    insert_movement(
        connection, "foreign", ("charge", key("sale")), merchant_id=OTHER_MERCHANT, payout_id=PAID, **values
    )


def reinstatement_of_a_lost_dispute(connection: Connection) -> None:
    """The sum is right again by a second withdrawal."""
    for name, amount in (("undeserved", 1000), ("again", -1000)):
        insert_movement(connection, name, ("dispute", LOST), amount=amount, type="adjustment")
    insert_link(connection, LOST, "reinstated", "undeserved")


def withdrawal_that_adds(connection: Connection) -> None:
    """The sum is right again by two withdrawals."""
    for name, amount in (("upside down", 1000), ("one", -1000), ("two", -1000)):
        insert_movement(connection, name, ("dispute", OPEN), amount=amount, type="adjustment")
    insert_link(connection, OPEN, "withdrawn", "upside down")


def withdrawal_of_another_dispute(connection: Connection) -> None:
    insert_link(connection, OPEN, "withdrawn", f"withdrawn {LOST}")


def movement_of_a_payout_that_is_not_there(connection: Connection) -> None:
    values = {"amount": -1, "type": "payout", "reporting_category": "payout"}
    insert_movement(connection, "of nothing", ("payout", uuid.uuid4()), **values)


UPDATE_CHARGE = "UPDATE payments.charges SET {} WHERE id = %s"
UPDATE_MOVEMENT = "UPDATE payments.balance_transactions SET {} WHERE id = %s"
UPDATE_REFUND = "UPDATE payments.refunds SET {} WHERE id = %s"
NO_MOVEMENT = "balance_transaction_id = NULL, balance_transaction_created = NULL"
DAMAGES: list[tuple[str, Callable[[Connection], None], str]] = [
    (
        "refunds past the trigger",
        sql(UPDATE_CHARGE.format("amount_refunded = 1"), key("sale")),
        "charges_refunded_equals_refunds",
    ),
    (
        "a mark without a dispute",
        sql(UPDATE_CHARGE.format("disputed = TRUE"), key("sale")),
        "charges_disputed_equals_disputes",
    ),
    ("a movement of no payout", movement_of_a_payout_that_is_not_there, "movements_have_their_source"),
    (
        "a movement for another merchant than its charge's",
        sql(UPDATE_MOVEMENT.format("merchant_id = %s"), OTHER_MERCHANT, key("first part")),
        "movements_agree_with_their_source",
    ),
    (
        "a movement for another merchant than its refund's",
        sql(UPDATE_MOVEMENT.format("merchant_id = %s"), OTHER_MERCHANT, key("refund given back")),
        "movements_agree_with_their_source",
    ),
    (
        "a movement for another merchant than its dispute's",
        sql(UPDATE_MOVEMENT.format("merchant_id = %s"), OTHER_MERCHANT, key("reported")),
        "movements_agree_with_their_source",
    ),
    (
        "a movement for another merchant than its payout's",
        sql(UPDATE_MOVEMENT.format("merchant_id = %s"), OTHER_MERCHANT, key(f"own {MANUAL}")),
        "movements_agree_with_their_source",
    ),
    (
        "a movement in another currency that says no rate",
        sql(UPDATE_MOVEMENT.format("currency = 'usd'"), key("imported")),
        "movements_agree_with_their_source",
    ),
    (
        "a movement in the same currency that says a rate",
        sql(UPDATE_MOVEMENT.format("exchange_rate = 1"), key("imported")),
        "movements_agree_with_their_source",
    ),
    ("a sale that is not in the ledger", sale_in_the_ledger_goes, "captured_charges_are_in_the_ledger"),
    ("a sale that is in the ledger twice", sale_twice_in_the_ledger, "captured_charges_are_in_the_ledger"),
    (
        "a sale of another amount in the ledger",
        sql(UPDATE_MOVEMENT.format("amount = 1001, net = 942"), key("imported")),
        "captured_charges_are_in_the_ledger",
    ),
    (
        "a converted sale of another amount in the ledger",
        sql(UPDATE_MOVEMENT.format("amount = 902, net = 902"), key("dollars")),
        "captured_charges_are_in_the_ledger",
    ),
    (
        "a converted sale as if both currencies had cents",
        sql(UPDATE_MOVEMENT.format("amount = 6, net = 6"), key("yen")),
        "captured_charges_are_in_the_ledger",
    ),
    (
        "a succeeded refund that names no movement",
        sql(UPDATE_REFUND.format(NO_MOVEMENT), key("given back")),
        "refunds_are_in_the_ledger",
    ),
    (
        "a refund that succeeded without a movement",
        sql(UPDATE_REFUND.format("status = 'succeeded'"), key("asked for")),
        "refunds_are_in_the_ledger",
    ),
    ("a refund that is in the ledger twice", refund_twice_in_the_ledger, "refunds_are_in_the_ledger"),
    (
        "a refund of another amount in the ledger",
        sql(UPDATE_MOVEMENT.format("amount = -99, net = -99"), key("refund given back")),
        "refunds_are_in_the_ledger",
    ),
    (
        "a failed refund that did not come back",
        sql(UPDATE_MOVEMENT.format("source_id = NULL, source_type = NULL"), key("refund_failure did not arrive")),
        "refunds_are_in_the_ledger",
    ),
    (
        "a canceled refund that was given",
        refund_that_was_called_off_in_the_ledger,
        "refunds_are_in_the_ledger",
    ),
    (
        "a try in another currency",
        sql(UPDATE_CHARGE.format("currency = 'usd'"), key("declined")),
        "charges_agree_with_their_intent",
    ),
    (
        "a try for another merchant",
        sql(UPDATE_CHARGE.format("merchant_id = %s"), OTHER_MERCHANT, key("declined")),
        "charges_agree_with_their_intent",
    ),
    (
        "an intent that received less than was captured",
        sql("UPDATE payments.payment_intents SET amount_received = 999 WHERE id = %s", INTENT),
        "amount_received_was_captured",
    ),
    (
        "an intent whose charge is gone from it",
        sql(UPDATE_CHARGE.format("payment_intent_id = NULL"), key("sale")),
        "amount_received_was_captured",
    ),
    ("a charge after the customer left", charge_after_the_customer_left, "deleted_customers_pay_no_more"),
    (
        "a line that is not in the subtotal",
        sql("UPDATE payments.invoice_lines SET amount = 1001 WHERE id = %s", key("goods")),
        "invoice_lines_add_up_to_the_subtotal",
    ),
    (
        "an invoice without lines that asks for money",
        sql(
            "INSERT INTO payments.invoices (merchant_id, customer_id, currency, billing_reason, subtotal, total, "
            "amount_due, status, period_start, period_end) "
            "VALUES (%s, %s, 'eur', 'manual', 1, 1, 1, 'draft', now(), now())",
            MERCHANT,
            CUSTOMER,
        ),
        "invoice_lines_add_up_to_the_subtotal",
    ),
    (
        "a line in another currency",
        sql(
            "INSERT INTO payments.invoice_lines (invoice_id, amount, currency, period_start, period_end) "
            "VALUES (%s, 0, 'usd', now(), now())",
            INVOICE,
        ),
        "invoice_lines_add_up_to_the_subtotal",
    ),
    (
        "a part of a fee is gone",
        sql("DELETE FROM payments.fee_details WHERE id = %s", key("tax")),
        "fee_details_add_up_to_the_fee",
    ),
    (
        "a fee without parts",
        sql(UPDATE_MOVEMENT.format("fee = 1, net = 399"), key("first part")),
        "fee_details_add_up_to_the_fee",
    ),
    (
        "a part of a fee in another currency",
        sql(
            "INSERT INTO payments.fee_details (balance_transaction_id, balance_transaction_created, amount, currency, "
            "type) VALUES (%s, %s, 0, 'usd', 'tax')",
            key("sale"),
            NOW,
        ),
        "fee_details_add_up_to_the_fee",
    ),
    (
        "a movement that its payout no longer holds",
        sql("UPDATE payments.balance_transactions SET payout_id = NULL WHERE id = %s", key("sale")),
        "payouts_are_their_movements",
    ),
    (
        "a failed payout that let its movements go",
        sql("UPDATE payments.balance_transactions SET payout_id = NULL WHERE id = %s", key("earlier")),
        "payouts_are_their_movements",
    ),
    (
        "a movement of another merchant is paid out",
        movement_of_another_merchant_is_paid_out,
        "payouts_are_their_movements",
    ),
    (
        "a payout that names no ledger row",
        sql(
            "UPDATE payments.payouts SET balance_transaction_id = NULL, balance_transaction_created = NULL "
            "WHERE id = %s",
            PAID,
        ),
        "payouts_are_in_the_ledger",
    ),
    (
        "a payout that takes less off the balance",
        sql("UPDATE payments.balance_transactions SET amount = -69, net = -69 WHERE id = %s", key(f"own {MANUAL}")),
        "payouts_are_in_the_ledger",
    ),
    (
        "a failed payout that did not come back",
        sql(
            "UPDATE payments.balance_transactions SET source_id = %s, source_type = 'charge' WHERE id = %s",
            key("sale"),
            key("paid back"),
        ),
        "payouts_are_in_the_ledger",
    ),
    (
        "a won dispute without its reinstatement",
        sql("DELETE FROM payments.dispute_balance_transactions WHERE dispute_id = %s AND kind = 'reinstated'", WON),
        "disputes_have_their_movements",
    ),
    (
        "a lost dispute without its withdrawal",
        sql("DELETE FROM payments.dispute_balance_transactions WHERE dispute_id = %s", LOST),
        "disputes_have_their_movements",
    ),
    ("a dispute that was withdrawn twice", dispute_withdrawn_twice, "disputes_have_their_movements"),
    (
        "a dispute of which less was withdrawn",
        sql(UPDATE_MOVEMENT.format("amount = -999, net = -2499"), key("reported")),
        "disputes_have_their_movements",
    ),
    ("a reinstatement of a lost dispute", reinstatement_of_a_lost_dispute, "disputes_have_their_movements"),
    ("a withdrawal that adds", withdrawal_that_adds, "disputes_have_their_movements"),
    ("a withdrawal of another dispute", withdrawal_of_another_dispute, "disputes_have_their_movements"),
]


@pytest.mark.parametrize(("damage", "check"), [damage[1:] for damage in DAMAGES], ids=[damage[0] for damage in DAMAGES])
def test_a_damage_fails_its_check_and_no_other(
    database: Settings, connection: Connection, damage: Callable[[Connection], None], check: str
) -> None:
    damage(connection)
    assert len(failing(connection)) == 1
    assert not passes({each.check_key.name: each for each in MONEY_CHECKS}[check], database)


def test_every_check_of_the_money_is_shown_failing() -> None:
    assert {check for _, _, check in DAMAGES} == {check.check_key.name for check in MONEY_CHECKS}
    assert len(COUNTS) == len(MONEY_CHECKS)
    others = {value for value in vars(checks).values() if isinstance(value, dg.AssetChecksDefinition)}
    assert all("partition" in check.check_key.name for check in others - set(MONEY_CHECKS))
