"""Marts that are built along the change log are those that are built from the whole of it, whatever happened."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from stripe_platform.oltp.tables import CAPTURED_TABLES, CapturedTable
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path
from stripe_platform_tests.integration.test_warehouse import (
    CHARGE,
    DISPUTE,
    EPOCH,
    LATE_CHARGE,
    Lake,
    build,
    charge,
    key,
    rows_of_build,
    write_payments,
)

# So many that a change touches few of them, and so few that what is deleted comes again and what is named is there.
KEYS = range(1, 301)
# An object has some ledger rows, as most have in truth; codes are few.
NUMBERS = {"balance_transactions": range(1, 1501), "currencies": range(1, 4), "countries": range(1, 4)}
# What hangs together by more than one step changes most.
OFTEN = {"balance_transactions": 24} | dict.fromkeys(("charges", "refunds", "disputes", "payment_methods"), 6)
# A change of these touches so many rows that what other changes failed to touch would be made good by it.
SWEEPING = {"exchange_rates", "currencies"}
WITHOUT_SWEEPING = tuple(table for table in CAPTURED_TABLES if table.name not in SWEEPING)
BRANDS = ("visa", "mastercard", "amex")
CURRENCIES = ("eur", "usd", "jpy")
VALUES: dict[str, tuple[Any, ...]] = {
    "currency": CURRENCIES,
    "default_currency": CURRENCIES,
    "brand": BRANDS,
    "country": ("FR", "DE", None),
    "issuer_country": ("FR", "DE"),
    "exponent": (0, 2, 3),
    "source_type": ("charge", "refund", "dispute", "payout", None),
    "reporting_category": ("charge", "refund", "refund_failure", "dispute", "dispute_reversal", "fee", "payout"),
    "kind": ("withdrawn", "reinstated"),
    "network_status": ("approved_by_network", "declined_by_network", "not_sent_to_network"),
    "recurring_interval": ("month", "year", "week"),
    "interval_count": (1, 3),
    "reason": ("fraudulent", "general", None),
}
STATUSES = {
    "charges": ("succeeded", "failed", "pending"),
    "refunds": ("succeeded", "failed", "canceled"),
    "disputes": ("needs_response", "won", "lost", "warning_closed"),
    "payouts": ("paid", "failed"),
    "subscriptions": ("active", "canceled"),
    "invoices": ("paid", "open", "void"),
}
TYPES = {
    "events": ("charge.dispute.closed", "charge.succeeded"),
    "charge_outcomes": ("authorized", "blocked"),
    "prices": ("recurring", "one_time"),
}
# Dates, numbers and codes that are keys: one of them for each number.
CODES = {"currencies": CURRENCIES, "countries": ("FR", "DE", "US")}


def created_of(number: int) -> Any:
    """An object's creation never changes; there are five a day, over two months."""
    return EPOCH + timedelta(hours=5 * (number % 300 - 150))


class World:
    """Rows of every captured table that come, change, go and come again, with no more order than the log keeps."""

    def __init__(self, lake: Lake, seed: int) -> None:
        self.lake = lake
        self.chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.alive: set[tuple[str, int]] = set()
        self.streamed: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self.lsn = 1_000_000

    def live(self, steps: int, tables: Sequence[CapturedTable] = CAPTURED_TABLES) -> None:
        """So many changes of some tables, some of them replays."""
        changes = defaultdict(list)
        weights = [OFTEN.get(table.name, 1) for table in tables]
        for _ in range(steps):
            table, partition, change = self._step(*self.chance.choices(tables, weights))
            changes[table, partition].append(change)
        for (table, partition), of_partition in changes.items():
            self.lake.write(table, *of_partition, partition=partition)

    def lose(self) -> None:
        """Changes of some partitions never come; most rows before them are read again, and the others are gone."""
        for table in self.chance.sample(CAPTURED_TABLES, 3):
            partition = self.chance.randrange(table.topic_partitions)
            here = {
                (name, number)
                for name, number in self.alive
                if name == table.name and number % table.topic_partitions == partition
            }
            read = {of for of in sorted(here) if self.chance.random() < 0.9}
            self.alive = (self.alive - here) | read
            self.lake.lose(table.name, partition, 2)
            rows = [self._row(table, number) | {"_op": "r", "_lsn": None} for _, number in sorted(read)]
            self.lake.write(table.name, *rows, partition=partition)

    def _step(self, table: CapturedTable) -> tuple[str, int, dict[str, Any]]:
        number = self.chance.choice(NUMBERS.get(table.name, KEYS))
        streamed = self.streamed[table.name]
        if streamed and self.chance.random() < 0.1:
            number, change = self.chance.choice(streamed)
        elif self.chance.random() < 0.0002:
            change = {"_op": "t", "_lsn": self.lsn}
            self.alive = {other for other in self.alive if other[0] != table.name}
        else:
            change = self._change(table, number)
            streamed.append((number, change))
        return table.name, number % table.topic_partitions, change

    def _change(self, table: CapturedTable, number: int) -> dict[str, Any]:
        self.lsn += 10
        lives = (table.name, number) in self.alive
        row = self._row(table, number)
        if lives and self.chance.random() < 0.3:
            self.alive.discard((table.name, number))
            return {"_op": "d", "_lsn": self.lsn} | {name: row[name] for name in table.key}
        self.alive.add((table.name, number))
        return row | {"_op": "u" if lives else "c", "_lsn": self.lsn}

    def _row(self, table: CapturedTable, number: int) -> dict[str, Any]:
        row = {field.name: self._value(table, field, number) for field in self.lake.rows[table.name]}
        if "charge_created" in row:
            of_charge = number if "charge_id" in table.key else self.chance.choice(KEYS)
            row |= {"charge_id": key(of_charge), "charge_created": created_of(of_charge)}
        if table.name == "exchange_rates":
            row |= {"day": created_of(number).date(), "currency": CURRENCIES[number % 3]}
        if table.name == "dispute_balance_transactions":
            row |= {"dispute_id": key(1 + number // 2), "kind": VALUES["kind"][number % 2]}
        return row

    def _value(self, table: CapturedTable, field: pa.Field, number: int) -> Any:
        name = field.name
        if name in table.key and table.name in CODES:
            return CODES[table.name][number % 3]
        if name in table.key and pa.types.is_string(field.type):
            return key(number)
        if name == "created":
            return created_of(number)
        choices = {"status": STATUSES.get(table.name), "type": TYPES.get(table.name)}.get(name) or VALUES.get(name)
        if choices:
            return self.chance.choice(choices)
        if name.endswith(("_id", "fingerprint")):
            # No intent has the id of a charge: a charge without an intent is a payment by itself.
            first = 1_000 if name == "payment_intent_id" else 0
            return self.chance.choice([*(key(first + other) for other in KEYS), None])
        return self._of_type(field.type)

    def _of_type(self, kind: pa.DataType) -> Any:
        if pa.types.is_boolean(kind):
            return self.chance.random() < 0.5
        if pa.types.is_integer(kind):
            return self.chance.randint(1, 100)
        if pa.types.is_timestamp(kind):
            return created_of(self.chance.choice(KEYS))
        if pa.types.is_date(kind):
            return created_of(self.chance.choice(KEYS)).date()
        if pa.types.is_decimal(kind):
            return Decimal(self.chance.randint(1, 20_000)) / 10_000
        return self.chance.choice(["one", "two", None])


def marts(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table of the marts, in an order of their own."""
    named = "select table_name from duckdb_tables() where schema_name = 'marts' order by 1"
    return {
        name: rows_of_build(settings, f"select * from marts.{name} order by all")
        for (name,) in rows_of_build(settings, named)
    }


NO_TESTS = ("--exclude-resource-type", "test", "unit_test")
BUILD_MODELS = ("--select", "+path:models/marts", *NO_TESTS)


# No score is stored yet, and few random lines are of all that MRR asks for; neither is built along the change log.
BUILT_WHOLE = {"fraud_loss", "mrr"}
# What may be built between two whole runs, as by hand or by a run that failed on the way.
PARTS = (
    ("--select", "path:models/staging/state", *NO_TESTS),
    (*BUILD_MODELS, "--exclude", "fact_transactions+"),
    (*BUILD_MODELS, "--exclude", "fact_charges"),
)


@pytest.mark.parametrize("seed", [1, 2])
def test_incremental_builds_end_in_the_same_marts_as_one_of_the_whole_log(tmp_path: Path, seed: int) -> None:
    lake = Lake(tmp_path)
    world = World(lake, seed)
    world.live(20_000)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    world.live(500)
    build(lake.settings, lake.cut(), *world.chance.choice(PARTS))
    world.live(20)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    world.live(500)
    world.lose()
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    world.live(300, WITHOUT_SWEEPING)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    incremental = marts(lake.settings)
    build(lake.settings, lake.cut(), *BUILD_MODELS, "--full-refresh")
    whole = marts(lake.settings)
    for name, rows in whole.items():
        assert rows or name in BUILT_WHOLE, f"{name} has no row to compare"
        assert incremental[name] == rows, name


def decline_codes(settings: Settings) -> dict[str, str | None]:
    return dict(rows_of_build(settings, "select charge_id, decline_code from marts.fact_charges"))


def test_a_build_computes_only_what_changed_and_by_request_a_month_or_everything_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    write_payments(lake)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    january, february, gone = CHARGE, LATE_CHARGE, key(99)
    with duckdb.connect(str(build_path(lake.settings))) as connection:
        # What no build would write; the last of them is of a charge that nobody ever made.
        connection.execute("update marts.fact_charges set decline_code = 'spoiled'")
        connection.execute(
            f"insert into marts.fact_charges select * replace ('{gone}' as charge_id) from marts.fact_charges "
            f"where charge_id = '{january}'"
        )
    lake.write("charges", charge(key(98), 5), partition=0)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    after = decline_codes(lake.settings)
    assert after[key(98)] is None
    assert after[january] == after[february] == after[gone] == "spoiled"

    build(lake.settings, lake.cut(), *BUILD_MODELS, "--vars", "{month: 2026-01-01}")
    after = decline_codes(lake.settings)
    assert after[january] is None
    assert gone not in after
    assert after[february] == "spoiled"

    build(lake.settings, lake.cut(), *BUILD_MODELS, "--full-refresh")
    assert set(decline_codes(lake.settings).values()) == {None}


def test_a_mart_built_without_what_it_is_made_from_is_told_of_the_change_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    write_payments(lake)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    lake.write("disputes", {"_op": "d", "id": DISPUTE})
    of_dispute = f"select count(*) from marts.fact_transactions where source_id = '{DISPUTE}' and charge_id is not null"
    build(lake.settings, lake.cut(), "--select", "+fact_charges", "--exclude", "fact_transactions", *NO_TESTS)
    assert rows_of_build(lake.settings, of_dispute) == [(2,)]
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    assert rows_of_build(lake.settings, of_dispute) == [(0,)]
    net = f"select net from marts.fact_charges where charge_id = '{CHARGE}'"
    assert rows_of_build(lake.settings, net) == [(7_680,)]
