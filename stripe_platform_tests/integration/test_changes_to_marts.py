"""What one change does to the marts of the build after it: to which of them, and to none besides."""

import shutil
from copy import copy
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.test_incremental_marts import BUILD_MODELS, marts
from stripe_platform_tests.integration.test_warehouse import (
    AFTER_MIDNIGHT,
    BEFORE_MIDNIGHT,
    CHARGE,
    CUSTOMER,
    DISPUTE,
    EPOCH,
    FAILED_CHARGE,
    MERCHANT,
    OTHER_MERCHANT,
    YEN_CHARGE,
    Lake,
    build,
    charge,
    key,
    movement,
    rows_of_build,
    write_payments,
)

Marts = dict[str, list[tuple[Any, ...]]]
DELETED_CHARGE, LATE_CHARGE, LATE_REFUND = key(30), key(31), key(32)
# Yen were charged on four days in a row: on the first and on the last a rate was set.
YEN_DAYS = {key(40 + day): datetime(2026, 1, 28, 12, tzinfo=UTC) + timedelta(days=day) for day in (1, 2, 4)}
EARLY_YEN, NEXT_YEN, LATE_YEN = YEN_DAYS


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Payments with some history, and a refund whose charge is not there yet; built once."""
    lake = Lake(tmp_path_factory.mktemp("built"))
    write_payments(lake)
    lake.write("charges", charge(DELETED_CHARGE, 900), {"_op": "d", "id": DELETED_CHARGE}, partition=2)
    lake.write("merchants", {"id": OTHER_MERCHANT, "country": "FR", "business_name": "renamed", "_op": "u"})
    lake.write("exchange_rates", {"day": date(2026, 1, 29), "currency": "jpy", "rate": Decimal("0.004")})
    lake.write(
        "charges", *(charge(identity, 500, "jpy", created=time) for identity, time in YEN_DAYS.items()), partition=3
    )
    lake.write(
        "balance_transactions",
        *(
            movement(40 + place, "charge", 500, 15, currency="jpy", source_id=identity, created=time)
            for place, (identity, time) in enumerate(YEN_DAYS.items())
        ),
        partition=1,
    )
    write_refund_without_its_charge(lake)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    return lake


def write_refund_without_its_charge(lake: Lake) -> None:
    refund = {"id": LATE_REFUND, "charge_id": LATE_CHARGE, "charge_created": BEFORE_MIDNIGHT, "amount": 400}
    lake.write("refunds", refund | {"currency": "eur", "status": "succeeded", "created": AFTER_MIDNIGHT})
    lake.write(
        "balance_transactions",
        movement(50, "refund", -400, source_type="refund", source_id=LATE_REFUND, created=AFTER_MIDNIGHT),
        partition=2,
    )


@pytest.fixture
def lake(built: Lake, tmp_path: Path) -> Lake:
    """A copy, for a test to go on from."""
    shutil.copytree(built.settings.home, tmp_path / "home")
    lake = copy(built)
    lake.settings = Settings(stripe_platform_home=tmp_path / "home")
    return lake


@pytest.fixture
def before(lake: Lake) -> Marts:
    return marts(lake.settings)


def build_again(lake: Lake) -> Marts:
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    return marts(lake.settings)


def changed(before: Marts, after: Marts) -> set[str]:
    """The marts whose rows are others now."""
    assert before.keys() == after.keys()
    return {name for name, rows in after.items() if rows != before[name]}


def value(lake: Lake, sql: str) -> Any:
    ((found,),) = rows_of_build(lake.settings, sql)
    return found


# --- A dispute that is deleted ------------------------------------------------------------------------------------

OF_DISPUTE = f"select transaction_id, charge_id from marts.fact_transactions where source_id = '{DISPUTE}' order by 1"
NET = f"select net from marts.fact_charges where charge_id = '{CHARGE}'"
DISPUTED = f"select amount_disputed from marts.fact_charges where charge_id = '{CHARGE}'"
RATES = (
    "select disputes, disputes_of_charges, won, dispute_rate > 0 from marts.dispute_rates "
    f"where merchant_id = '{MERCHANT}' and month = '2026-01-01'"
)


def test_a_deleted_dispute_leaves_the_facts_the_rates_and_the_net_of_its_charge(lake: Lake, before: Marts) -> None:
    assert rows_of_build(lake.settings, OF_DISPUTE) == [(key(105), CHARGE), (key(106), CHARGE)]
    assert value(lake, NET) == 6_180
    assert value(lake, DISPUTED) == 5_000
    assert rows_of_build(lake.settings, RATES) == [(1, 1, 1, True)]
    for kind in ("withdrawn", "reinstated"):
        lake.write("dispute_balance_transactions", {"_op": "d", "dispute_id": DISPUTE, "kind": kind})
    lake.write("disputes", {"_op": "d", "id": DISPUTE})

    after = build_again(lake)

    assert after["fact_disputes"] == []
    # The ledger keeps what it has booked, and knows no more of which charge it was.
    assert rows_of_build(lake.settings, OF_DISPUTE) == [(key(105), None), (key(106), None)]
    assert value(lake, NET) == 7_680
    assert value(lake, DISPUTED) == 0
    assert rows_of_build(lake.settings, RATES) == [(0, 0, 0, False)]
    facts = {"fact_disputes", "fact_transactions", "fact_charges"}
    assert changed(before, after) == facts | {"dispute_rates", "dispute_reasons", "merchant_gmv"}


@pytest.mark.parametrize(("status", "amount", "disputed"), [("lost", 7_000, 7_000), ("warning_closed", 5_000, 0)])
def test_a_dispute_that_changes_changes_what_is_disputed_of_its_charge(
    lake: Lake, before: Marts, status: str, amount: int, disputed: int
) -> None:
    of_charge = {"charge_id": CHARGE, "charge_created": BEFORE_MIDNIGHT, "created": BEFORE_MIDNIGHT}
    dispute = {"_op": "u", "id": DISPUTE, "amount": amount, "currency": "eur", "status": status, "reason": "general"}
    lake.write("disputes", of_charge | dispute)

    after = build_again(lake)

    assert value(lake, DISPUTED) == disputed
    assert changed(before, after) == {"fact_charges", "fact_disputes", "dispute_rates", "dispute_reasons"}


# --- A charge that failed -----------------------------------------------------------------------------------------

CODES = "select card_brand, decline_code, declined from marts.decline_codes order by all"


def failed_charge(**others: Any) -> dict[str, Any]:
    return charge(FAILED_CHARGE, 700, status="failed", amount_captured=0, failure_code="card_declined", **others)


def test_a_failed_charge_moves_to_another_code_and_to_another_card_and_goes_when_it_is_deleted(
    lake: Lake, before: Marts
) -> None:
    assert rows_of_build(lake.settings, CODES) == [("visa", "card_declined", 1)]
    lake.write("charges", failed_charge(_op="u", decline_code="lost_card"), partition=1)
    corrected = build_again(lake)
    assert rows_of_build(lake.settings, CODES) == [("visa", "lost_card", 1)]
    assert changed(before, corrected) == {"fact_charges", "decline_codes"}

    lake.write("card_fingerprints", {"_op": "u", "fingerprint": "f" * 16, "brand": "amex", "funding": "credit"})
    build_again(lake)
    assert rows_of_build(lake.settings, CODES) == [("amex", "lost_card", 1)]

    lake.write("charges", {"_op": "d", "id": FAILED_CHARGE, "created": BEFORE_MIDNIGHT}, partition=1)
    build_again(lake)
    assert rows_of_build(lake.settings, CODES) == []


# --- Merchants and customers that change --------------------------------------------------------------------------


def merchant(identity: str, name: str, seconds: int) -> dict[str, Any]:
    """An edit that was committed so many seconds after everything else."""
    committed_at = EPOCH + timedelta(minutes=1, seconds=seconds)
    return {"_op": "u", "id": identity, "country": "FR", "business_name": name, "_committed_at": committed_at}


def test_two_edits_of_a_merchant_in_one_batch_are_two_versions_and_touch_no_fact(lake: Lake, before: Marts) -> None:
    lake.write("merchants", merchant(MERCHANT, "first", 1), merchant(MERCHANT, "second", 2))
    lake.write("merchants", merchant(OTHER_MERCHANT, "never seen", 3), merchant(OTHER_MERCHANT, "last", 3))

    after = build_again(lake)

    first, second, third = (EPOCH + timedelta(minutes=1, seconds=seconds) for seconds in (1, 2, 3))
    versions = (
        "select business_name, version > 1, valid_from, valid_to, is_current from marts.dim_merchants "
        f"where committed_at > '{EPOCH + timedelta(minutes=1)}' order by committed_at"
    )
    assert rows_of_build(lake.settings, versions) == [
        ("first", True, first, second, False),
        ("second", True, second, None, True),
        ("last", True, third, None, True),
    ]
    ended = f"select valid_to from marts.dim_merchants where merchant_id = '{MERCHANT}' and version = 1"
    assert value(lake, ended) == first
    assert changed(before, after) == {"dim_merchants"}


@pytest.mark.parametrize("builds", [1, 2])
def test_a_customer_who_left_and_came_back_has_three_versions_and_keeps_the_charges(
    lake: Lake, before: Marts, builds: int
) -> None:
    of_customer = f"select count(*) from marts.fact_charges where customer_id = '{CUSTOMER}'"
    charges = value(lake, of_customer)
    here: dict[str, Any] = {"_op": "u", "id": CUSTOMER, "country": "FR", "balance": 0}
    lake.write("customers", here | {"deleted_at": AFTER_MIDNIGHT})
    if builds == 2:
        assert changed(before, build_again(lake)) == {"dim_customers"}
        assert value(lake, of_customer) == charges
    lake.write("customers", here)

    after = build_again(lake)

    versions = f"select version, is_deleted, is_current from marts.dim_customers where customer_id = '{CUSTOMER}'"
    assert sorted(rows_of_build(lake.settings, versions)) == [(1, False, False), (2, True, False), (3, False, True)]
    gaps = (
        "select count(*) from marts.dim_customers as earlier inner join marts.dim_customers as later "
        "on earlier.customer_id = later.customer_id and earlier.version + 1 = later.version "
        "and earlier.valid_to = later.valid_from"
    )
    assert value(lake, gaps) == 2
    assert charges > 0
    assert value(lake, of_customer) == charges
    assert changed(before, after) == {"dim_customers"}


# --- Changes that come late, or again -----------------------------------------------------------------------------


def test_a_charge_that_comes_a_build_after_its_refund_is_joined_with_it(lake: Lake, before: Marts) -> None:
    of_refund = f"select merchant_id from marts.fact_refunds where refund_id = '{LATE_REFUND}'"
    of_charge = f"select amount, net, day::varchar from marts.fact_charges where charge_id = '{LATE_CHARGE}'"
    assert value(lake, of_refund) is None
    assert rows_of_build(lake.settings, of_charge) == []
    lake.write("charges", charge(LATE_CHARGE, 1_000), partition=1)
    lake.write("balance_transactions", movement(51, "charge", 1_000, 60, source_id=LATE_CHARGE), partition=0)

    incremental = build_again(lake)

    assert value(lake, of_refund) == MERCHANT
    assert rows_of_build(lake.settings, of_charge) == [(1_000, 540, "2026-01-31")]
    assert {"fact_refunds", "fact_charges", "daily_revenue"} < changed(before, incremental)
    build(lake.settings, lake.cut(), *BUILD_MODELS, "--full-refresh")
    assert changed(incremental, marts(lake.settings)) == set()


def replay(lake: Lake) -> int:
    """Append every change of every log once more, as whoever rewinds a topic by hand would; how many they were."""
    replayed = 0
    for table in CAPTURED_TABLES:
        log = ChangeLog.existing(lake.settings, table.name)
        assert log is not None
        for partition, end in log.next_offsets.items():
            changes = log.changes(partition, 0, end).drop_columns("_loaded_at")
            if not changes.num_rows:
                continue
            place = changes.schema.get_field_index("_offset")
            again = [offset + end for offset in changes["_offset"].to_pylist()]
            log.append(changes.set_column(place, changes.schema.field(place), [again]), {partition: 2 * end})
            replayed += changes.num_rows
    return replayed


def test_changes_that_are_replayed_change_nothing_in_any_mart(lake: Lake, before: Marts) -> None:
    staged = "select sum(_offset) from staging_state.state_charges"
    position = value(lake, staged)
    assert replay(lake) > 30

    after = build_again(lake)

    assert value(lake, staged) > position
    assert sum(1 for rows in after.values() if rows) > 15
    assert changed(before, after) == set()


# --- A rate that is set afterwards --------------------------------------------------------------------------------


def yen(lake: Lake) -> dict[str, int]:
    """What was captured of each charge in yen, in the reporting currency."""
    amounts = "select charge_id, amount_captured_reporting from marts.fact_charges where currency = 'jpy'"
    return dict(rows_of_build(lake.settings, amounts))


def others(rows: Marts, name: str, days: set[date]) -> list[tuple[Any, ...]]:
    """The rows of a mart that are not of yen on these days."""
    return [row for row in rows[name] if not ("jpy" in row and days & {cell for cell in row if type(cell) is date})]


def test_a_rate_set_for_an_old_day_counts_from_that_day_to_the_next_rate_and_nowhere_else(
    lake: Lake, before: Marts
) -> None:
    assert yen(lake) == {EARLY_YEN: 200, NEXT_YEN: 200, YEN_CHARGE: 200, LATE_YEN: 300}
    lake.write("exchange_rates", {"day": date(2026, 1, 30), "currency": "jpy", "rate": Decimal("0.005")})

    after = build_again(lake)

    assert yen(lake) == {EARLY_YEN: 200, NEXT_YEN: 250, YEN_CHARGE: 250, LATE_YEN: 300}
    gross = "select day::varchar, gross_reporting from marts.daily_revenue where currency = 'jpy' order by 1"
    assert rows_of_build(lake.settings, gross) == [
        ("2026-01-29", 200),
        ("2026-01-30", 250),
        ("2026-01-31", 250),
        ("2026-02-01", 300),
    ]
    days = {date(2026, 1, 30), date(2026, 1, 31)}
    for name in ("fact_charges", "fact_transactions", "daily_revenue"):
        assert others(after, name, days) == others(before, name, days), name
        assert others(after, name, days) != after[name]
    unpriced = ("authorization_rates", "decline_codes", "dim_merchants")
    for name in ("fact_refunds", "fact_disputes", "fact_payouts", *unpriced):
        assert after[name] == before[name], name
