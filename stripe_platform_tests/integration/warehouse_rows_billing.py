"""Rows from which the marts of subscriptions, disputes and fraud are made."""

from datetime import UTC, datetime
from typing import Any

from stripe_platform_tests.integration.test_warehouse import CHARGE, CUSTOMER, MERCHANT, METHOD, Lake, charge, key

MONTHLY, DEARER = key(301), key(302)
STAYS, LEAVES, SWAPS = key(311), key(312), key(313)
SWAPPED_IN = key(314)
NOVEMBER, DECEMBER, JANUARY, FEBRUARY = (
    datetime(year, month, 15, tzinfo=UTC) for year, month in ((2025, 11), (2025, 12), (2026, 1), (2026, 2))
)


def write_billing(lake: Lake) -> None:
    """
    A subscription that gets dearer, one that ends, one that swaps its item, and a fraud warning; the months begin with
    a failed charge.
    """
    failed = charge(
        key(300), 900, status="failed", amount_captured=0, failure_code="expired_card", payment_method_id=METHOD
    )
    lake.write("charges", failed | {"created": NOVEMBER}, partition=2)
    lake.write("early_fraud_warnings", {"id": key(300), "charge_id": CHARGE, "created": JANUARY})
    recurring = {"type": "recurring", "recurring_interval": "month", "interval_count": 1, "usage_type": "licensed"}
    lake.write("prices", recurring | {"id": MONTHLY, "unit_amount": 1_000}, recurring | {"id": DEARER})
    who = {"merchant_id": MERCHANT, "customer_id": CUSTOMER, "currency": "eur", "start_date": NOVEMBER}
    lake.write(
        "subscriptions",
        who | {"id": STAYS, "status": "active"},
        who | {"id": LEAVES, "status": "canceled", "canceled_at": DECEMBER, "ended_at": JANUARY},
        who | {"id": SWAPS, "status": "active"},
    )
    lake.write(
        "subscription_items",
        {"id": STAYS, "subscription_id": STAYS, "price_id": DEARER},
        {"id": LEAVES, "subscription_id": LEAVES, "price_id": MONTHLY},
        {"id": SWAPS, "subscription_id": SWAPS, "price_id": MONTHLY},
        {"id": SWAPPED_IN, "subscription_id": SWAPS, "price_id": DEARER},
    )
    bills = [
        (STAYS, MONTHLY, 1_000, NOVEMBER, DECEMBER),
        (STAYS, DEARER, 2_000, DECEMBER, JANUARY),
        (STAYS, MONTHLY, 1_500, JANUARY, FEBRUARY),
        (LEAVES, MONTHLY, 1_000, NOVEMBER, DECEMBER),
        (LEAVES, MONTHLY, 1_000, DECEMBER, JANUARY),
        (SWAPS, MONTHLY, 1_000, NOVEMBER, DECEMBER),
        (SWAPPED_IN, DEARER, 2_000, DECEMBER, JANUARY),
    ]
    lake.write("invoices", *({"id": key(320 + number), "status": "paid"} for number in range(len(bills))))
    lake.write("invoice_lines", *(_line(320 + number, bill) for number, bill in enumerate(bills)))


def _line(number: int, bill: tuple[str, str, int, datetime, datetime]) -> dict[str, Any]:
    item, price, amount, begins, ends = bill
    return {
        "id": key(number),
        "invoice_id": key(number),
        "subscription_item_id": item,
        "price_id": price,
        "amount": amount,
        "currency": "eur",
        "quantity": 1,
        "proration": False,
        "period_start": begins,
        "period_end": ends,
        "created": begins,
    }
