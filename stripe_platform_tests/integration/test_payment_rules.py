"""What a payments company writes and PostgreSQL must take, and what it must refuse."""

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import errors

from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.test_oltp import Connection, NewDatabase, insert, insert_charge

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MERCHANT, CUSTOMER, PRODUCT, PRICE, SUBSCRIPTION = (uuid.UUID(int=n, version=4) for n in range(1, 6))


@pytest.fixture(scope="module")
def database(new_database: NewDatabase) -> Settings:
    settings = new_database()
    migrate(settings)
    with connect(settings) as connection:
        shop = {"business_name": "Birch Books", "mcc": "5942", "country": "DE", "default_currency": "eur"}
        insert(connection, "merchants", id=MERCHANT, **shop)
        insert(connection, "customers", id=CUSTOMER, merchant_id=MERCHANT)
        insert(connection, "products", id=PRODUCT, merchant_id=MERCHANT, name="Magazine")
        monthly = {"type": "recurring", "recurring_interval": "month", "interval_count": 1, "usage_type": "licensed"}
        insert(connection, "prices", id=PRICE, product_id=PRODUCT, unit_amount=900, currency="eur", **monthly)
        parties = {"merchant_id": MERCHANT, "customer_id": CUSTOMER}
        insert(connection, "subscriptions", id=SUBSCRIPTION, currency="eur", status="active", start_date=NOW, **parties)
    return settings


@pytest.fixture
def connection(database: Settings) -> Iterator[Connection]:
    with connect(database) as connection:
        yield connection
        connection.rollback()


def refused_by(constraint: str | None) -> AbstractContextManager[object]:
    """Nothing is refused when it is None."""
    if constraint is None:
        return nullcontext()
    return pytest.raises(errors.IntegrityError, match=f'"{constraint}"')


def insert_invoice(connection: Connection, **values: object) -> uuid.UUID:
    invoice: dict[str, object] = {
        "id": uuid.uuid4(),
        "merchant_id": MERCHANT,
        "customer_id": CUSTOMER,
        "currency": "eur",
        "billing_reason": "subscription_cycle",
        "subscription_id": SUBSCRIPTION,
        "status": "draft",
        "subtotal": 900,
        "total": 900,
        "amount_due": 900,
        "period_start": NOW,
        "period_end": NOW + timedelta(days=31),
    } | values
    insert(connection, "invoices", **invoice)
    return invoice["id"]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("network_status", "constraint"),
    [
        ("not_sent_to_network", None),
        ("reversed_after_approval", None),
        ("approved_by_network", "blocked_was_not_sent_or_reversed"),
        ("declined_by_network", "blocked_was_not_sent_or_reversed"),
    ],
)
def test_a_blocked_payment_was_not_sent_or_was_reversed(
    connection: Connection, network_status: str, constraint: str | None
) -> None:
    charge_id, created = insert_charge(connection)
    judged = {"type": "blocked", "network_status": network_status, "risk_level": "highest"}
    with refused_by(constraint):
        insert(connection, "charge_outcomes", charge_id=charge_id, charge_created=created, **judged)


@pytest.mark.parametrize(
    ("subtotal", "tax", "total", "constraint"),
    [
        (1000, 190, 1190, None),
        (1190, 190, 1190, None),
        (2190, 380, 2380, None),
        (-1000, -190, -1190, None),
        (1000, 190, 1191, "total_is_subtotal_and_tax_on_top"),
        (1190, 190, 1000, "total_is_subtotal_and_tax_on_top"),
        (1000, 0, 999, "total_is_subtotal_and_tax_on_top"),
    ],
    ids=["on top", "included", "of both kinds", "a credit", "beyond", "less than the subtotal", "without tax"],
)
def test_a_tax_is_on_top_of_the_subtotal_or_included(
    connection: Connection, subtotal: int, tax: int, total: int, constraint: str | None
) -> None:
    with refused_by(constraint):
        insert_invoice(connection, subtotal=subtotal, tax=tax, total=total, amount_due=max(total, 0))


@pytest.mark.parametrize(("amount", "constraint"), [(500, None), (-500, None), (0, "a_payout_moves_money")])
def test_a_payout_goes_either_way_but_moves_something(
    connection: Connection, amount: int, constraint: str | None
) -> None:
    with refused_by(constraint):
        insert(
            connection, "payouts", merchant_id=MERCHANT, amount=amount, currency="eur", status="paid", arrival_date=NOW
        )


@pytest.mark.parametrize(
    ("status", "received", "capturable", "constraint"),
    [
        ("requires_capture", 0, 1000, None),
        ("requires_capture", 400, 600, None),
        ("succeeded", 1000, 0, None),
        ("succeeded", 400, 0, None),
        ("canceled", 400, 0, None),
        ("requires_capture", 401, 600, "received_and_capturable_within_amount"),
        ("requires_payment_method", 400, 0, "only_an_authorization_has_received"),
        ("processing", 400, 0, "only_an_authorization_has_received"),
    ],
)
def test_an_authorization_is_captured_in_parts_that_never_exceed_it(
    connection: Connection, status: str, received: int, capturable: int, constraint: str | None
) -> None:
    money = {"amount": 1000, "amount_received": received, "amount_capturable": capturable, "currency": "eur"}
    with refused_by(constraint):
        insert(connection, "payment_intents", merchant_id=MERCHANT, status=status, capture_method="manual", **money)


@pytest.mark.parametrize(
    "change",
    [
        "recurring_interval = 'year'",
        "interval_count = 2",
        "usage_type = 'metered'",
        "billing_scheme = 'tiered'",
        "type = 'one_time', recurring_interval = NULL, interval_count = NULL",
        "unit_amount = 1",
    ],
)
def test_what_a_price_bills_and_how_often_never_changes(connection: Connection, change: str) -> None:
    with pytest.raises(errors.IntegrityConstraintViolation, match=r"column \w+ of payments.prices cannot change"):
        connection.execute(f"UPDATE payments.prices SET {change} WHERE id = %s".encode(), [PRICE])


def test_a_price_can_still_be_retired_and_says_when_it_changed(connection: Connection) -> None:
    changed = connection.execute(
        "UPDATE payments.prices SET active = FALSE, updated = '2020-01-01' WHERE id = %s RETURNING updated = now()",
        [PRICE],
    )
    assert changed.fetchone() == (True,)


def test_a_cycle_of_a_subscription_is_invoiced_once(connection: Connection) -> None:
    insert_invoice(connection)
    insert_invoice(connection, period_start=NOW + timedelta(days=31), period_end=NOW + timedelta(days=61))
    insert_invoice(connection, billing_reason="subscription_update")
    with pytest.raises(errors.UniqueViolation, match='"invoices_once_a_cycle"'):
        insert_invoice(connection)


def test_a_voided_invoice_of_a_cycle_may_be_made_again(connection: Connection) -> None:
    void = insert_invoice(connection, status="void", number="1", finalized_at=NOW)
    again = insert_invoice(connection)
    assert void != again
