"""A rate that is set afterwards reaches the facts by their ledger rows, whatever their own currency and day."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from stripe_platform_tests.integration.test_incremental_marts import BUILD_MODELS
from stripe_platform_tests.integration.test_warehouse import (
    AFTER_MIDNIGHT,
    BEFORE_MIDNIGHT,
    CHARGE,
    MERCHANT,
    YEN_CHARGE,
    Lake,
    build,
    key,
    movement,
    rows_of_build,
    write_payments,
)

REFUND, DISPUTE, PAYOUT = key(60), key(61), key(62)
BEFORE_THE_RATE = datetime(2026, 1, 29, 12, tzinfo=UTC)
SUMS = {
    "refund": f"select fee_reporting, net_reporting from marts.fact_refunds where refund_id = '{REFUND}'",
    "dispute": (
        "select withdrawn_reporting, reinstated_reporting, fee_reporting, net_reporting from marts.fact_disputes "
        f"where dispute_id = '{DISPUTE}'"
    ),
    "payout": f"select fee_reporting, net_reporting from marts.fact_payouts where payout_id = '{PAYOUT}'",
    "paid out": (
        "select gross_reporting, fees_reporting, net_reporting from marts.payout_reconciliation "
        f"where payout_id = '{PAYOUT}'"
    ),
    "28 days": (
        "select gross_28_days_reporting, net_28_days_reporting from marts.rolling_revenue "
        "where currency = 'jpy' and day = '2026-02-01'"
    ),
}


def write_settled_in_yen(lake: Lake) -> None:
    """A refund and a dispute in euros, and a payout that came back two days later; all of them moved yen."""
    of_charge = {"charge_id": CHARGE, "charge_created": BEFORE_MIDNIGHT, "currency": "eur", "created": AFTER_MIDNIGHT}
    lake.write("refunds", of_charge | {"id": REFUND, "amount": 3, "status": "succeeded"})
    lake.write("disputes", of_charge | {"id": DISPUTE, "amount": 6, "status": "lost"})
    withdrawn = {"dispute_id": DISPUTE, "kind": "withdrawn", "balance_transaction_id": key(161)}
    lake.write("dispute_balance_transactions", withdrawn)
    lake.write(
        "payouts",
        {"id": PAYOUT, "merchant_id": MERCHANT, "amount": 485, "currency": "jpy", "created": BEFORE_THE_RATE},
    )
    payout: dict[str, Any] = {"currency": "jpy", "source_type": "payout", "source_id": PAYOUT}
    lake.write(
        "balance_transactions",
        movement(60, "refund", -400, currency="jpy", source_type="refund", source_id=REFUND),
        movement(61, "dispute", -1_000, 100, currency="jpy", source_type="dispute", source_id=DISPUTE),
        movement(62, "payout", -485, **payout, created=BEFORE_THE_RATE),
        movement(63, "payout_reversal", 485, **payout),
        movement(64, "charge", 500, 15, currency="jpy", source_id=YEN_CHARGE, payout_id=PAYOUT),
        partition=1,
    )


def set_rate(lake: Lake, day: date, rate: str) -> None:
    lake.write("exchange_rates", {"day": day, "currency": "jpy", "rate": Decimal(rate)})


def sums(lake: Lake) -> dict[str, tuple[Any, ...]]:
    return {what: row for what, sql in SUMS.items() for row in rows_of_build(lake.settings, sql)}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Payments of which some were settled in yen, built by one rate of yen for all their days."""
    lake = Lake(tmp_path)
    write_payments(lake)
    write_settled_in_yen(lake)
    set_rate(lake, date(2026, 1, 29), "0.004")
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    return lake


def test_a_rate_set_for_a_day_of_the_ledger_reaches_whatever_was_moved_on_it(lake: Lake) -> None:
    assert sums(lake) == {
        "refund": (0, -160),
        "dispute": (400, 0, 40, -440),
        "payout": (0, 0),
        "paid out": (200, 6, 194),
        "28 days": (400, -212),
    }
    set_rate(lake, date(2026, 1, 31), "0.005")

    build(lake.settings, lake.cut(), *BUILD_MODELS)

    assert sums(lake) == {
        "refund": (0, -200),
        "dispute": (500, 0, 50, -550),
        # It left at the old rate and came back at the new one.
        "payout": (0, 48),
        "paid out": (250, 8, 242),
        "28 days": (500, -266),
    }
