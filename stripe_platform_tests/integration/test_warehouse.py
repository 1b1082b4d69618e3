"""Change log → dbt → published file, for real: Delta tables written here, dbt-duckdb run as the platform runs it."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
import yaml

from stripe_platform.cdc.cut import Cut
from stripe_platform.cdc.cut_store import save_cut
from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.oltp.catalog import captured_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import CAPTURED_TABLES, TABLES_BY_NAME
from stripe_platform.raw.change_log import ChangeLog, next_offsets
from stripe_platform.raw.schema import row_schema
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform.warehouse.build import (
    BuildNotTested,
    build_path,
    mark_tested,
    prepare_build,
    publish,
    published_cut,
)
from stripe_platform.warehouse.build_rules import CutInGap, RawIsBehind, TopicWasRecreated, builder
from stripe_platform.warehouse.cuts import NoCut, cut_to_build_on
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.position import partitions_off_cut
from stripe_platform.warehouse.project import DBT, dbt_environment, dbt_manifest, dbt_resource
from stripe_platform.warehouse.published import published_path
from stripe_platform.warehouse.query import query_rows
from stripe_platform.warehouse.staging import staging_model

EPOCH = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC)
ARROW = {
    "varchar": pa.string(),
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "smallint": pa.int16(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    "decimal(20,10)": pa.decimal128(20, 10),
}
UNCHANGED = object()


def documented_columns(table: str) -> dict[str, str]:
    """PostgreSQL's column names with the types that the staging documentation gives them."""
    models = yaml.safe_load((PROJECT_ROOT / "dbt/models/staging/staging.yml").read_text())["models"]
    (model,) = [model for model in models if model["name"] == staging_model(table)]
    columns = {column["name"]: column["data_type"] for column in model["columns"]}
    del columns["committed_at"]
    first, *others = columns
    # Staging names some keys after their table.
    return {TABLES_BY_NAME[table].key[0]: columns[first]} | {name: columns[name] for name in others}


class Lake:
    """Writes change logs as the drain does; LSNs and commit times grow with each change unless they are given."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(stripe_platform_home=home)
        self.rows = {
            table.name: pa.schema([(name, ARROW[kind]) for name, kind in documented_columns(table.name).items()])
            for table in CAPTURED_TABLES
        }
        self.lsn = 1000
        # Staged rows beside the truth, one pair per build of random histories.
        self.compared: list[tuple[set[Any], set[Any]]] = []
        for table in self.rows:
            self._open(table)

    def write(self, table: str, *changes: dict[str, Any], partition: int = 0) -> None:
        """Append changes `{_op, column: value, …}`; `UNCHANGED` stands for a large value that was left out."""
        log = self._open(table)
        offset = log.next_offsets[partition]
        rows = []
        for change in changes:
            self.lsn += 10
            meta = {
                "_op": "c",
                "_lsn": self.lsn,
                "_xid": self.lsn,
                "_committed_at": EPOCH + timedelta(milliseconds=change.get("_lsn") or self.lsn),
                "_partition": partition,
                "_offset": offset,
                "_snapshot": change.get("_op") == "r",
                "_schema_version": "1",
                "_unchanged": [name for name, value in change.items() if value is UNCHANGED],
            }
            rows.append(meta | {name: None if value is UNCHANGED else value for name, value in change.items()})
            offset += 1
        schema = pa.schema([*self.rows[table], *CHANGE_FIELDS, ("_schema_version", pa.string())])
        log.append(pa.Table.from_pylist(rows, schema=schema), {partition: offset})

    def lose(self, table: str, partition: int, count: int) -> None:
        """Go on behind so many offsets that were never read, as after a recovery."""
        log = self._open(table)
        begin = log.next_offsets[partition] + count
        log.record_gaps({partition: begin}, {partition: begin})

    def cut(self) -> Cut:
        """A cut at the end of everything written."""
        self.lsn += 10
        made_at = EPOCH + timedelta(milliseconds=self.lsn)
        offsets = {table: next_offsets(self.settings, table) for table in self.rows}
        return Cut(f"cut-{self.lsn}", made_at, offsets, {table: f"{table}-topic" for table in self.rows})

    def _open(self, table: str) -> ChangeLog:
        return ChangeLog.open(self.settings, table, row=self.rows[table], topic_id=f"{table}-topic")


def dbt_build(settings: Settings, *arguments: str) -> int:
    target = str(settings.home / "target")
    with dbt_environment(settings):
        environment = os.environ | {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target}
        return subprocess.run(
            [DBT, "--quiet", "build", *arguments], cwd=PROJECT_DIR, env=environment, timeout=120, check=False
        ).returncode


def build(settings: Settings, cut: Cut, *arguments: str) -> None:
    with builder(settings):
        prepared = prepare_build(settings, cut)
        assert dbt_build(settings, *arguments) == 0
        mark_tested(settings, prepared)


def rows_of_build(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(build_path(settings)), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


# --- Order, deletes and unchanged values -------------------------------------------------------------------------


def key(number: int) -> str:
    return str(UUID(int=number, version=4))


class History:
    """A PostgreSQL of charges in miniature: `rows` is the truth, `changes` what its log says, replays included."""

    def __init__(self, seed: int, snapshot_lsn: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.seed = seed
        self.rows: dict[str, dict[str, Any]] = {}
        self.streamed: list[dict[str, Any]] = []
        self.made = 0
        # Changes of transactions that were open when the snapshot was taken come after it, with lower LSNs.
        self.lsn = snapshot_lsn - 50
        self.snapshot_lsn = snapshot_lsn

    def partition_loses(self, partition: int) -> None:
        """What was streamed for its keys cannot be replayed any more: it is in no topic."""
        self.streamed = [change for change in self.streamed if partition_of(change) != partition]

    def read_again(self, partition: int) -> list[dict[str, Any]]:
        """Every living row of a partition, as an incremental snapshot reads it."""
        return [self._read(row) for row in self.rows.values() if partition_of(row) == partition]

    def _read(self, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"_op": "r", "_lsn": None, "_snapshot": True, "_committed_at": self._now()}

    def snapshot(self, count: int) -> list[dict[str, Any]]:
        return [self._insert() | {"_op": "r", "_lsn": self.snapshot_lsn, "_snapshot": True} for _ in range(count)]

    def step(self) -> dict[str, Any]:
        self.lsn += self.chance.randint(1, 5)
        kind = self.chance.choices(
            ["insert", "update", "delete", "insert again", "replay", "read again"], [4, 9, 3, 1, 4, 2]
        )[0]
        if kind == "replay" and self.streamed:
            return self.chance.choice(self.streamed)
        if kind == "read again" and self.rows:
            return self._read(self.chance.choice(list(self.rows.values())))
        change = self._change(kind) | {"_lsn": self.lsn}
        self.streamed.append(change)
        return change

    def _change(self, kind: str) -> dict[str, Any]:
        live = list(self.rows.values())
        if kind == "delete" and live:
            row = self.rows.pop(self.chance.choice(live)["id"])
            return {"_op": "d", "id": row["id"], "created": row["created"]}
        if kind == "update" and live:
            return self._update(self.chance.choice(live))
        if kind == "insert again" and (gone := {change["id"] for change in self.streamed} - set(self.rows)):
            return self._insert(self.chance.choice(sorted(gone)))
        return self._insert()

    def _insert(self, identity: str | None = None) -> dict[str, Any]:
        if identity is None:
            self.made += 1
            identity = key(self.seed * 10_000 + self.made)
        row = {
            "id": identity,
            "created": EPOCH,
            "amount": self.chance.randint(0, 10_000),
            "metadata": self._text(),
            "description": self._text(),
        }
        self.rows[identity] = row
        return row | {"_op": "c"}

    def _update(self, row: dict[str, Any]) -> dict[str, Any]:
        change = row | {"_op": "u", "amount": self.chance.randint(0, 10_000)}
        for large in ("metadata", "description"):
            change[large] = self.chance.choice([UNCHANGED, UNCHANGED, self._text()])
        kept = {name: value for name, value in change.items() if value is not UNCHANGED and name != "_op"}
        self.rows[row["id"]] = row | kept
        return change

    def _text(self) -> str | None:
        return self.chance.choice([None, f"text {self.chance.random()}"])

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.lsn)


def merchant(number: int, **values: Any) -> dict[str, Any]:
    return {"id": key(number), "created": EPOCH} | values


def customer(number: int, **values: Any) -> dict[str, Any]:
    return {"id": key(number), "created": EPOCH} | values


def write_named_cases(lake: Lake, batch: int) -> None:
    """Cases by number of the merchant or customer; LSNs up to 900 are older than whatever `lake` gives by itself."""
    if batch == 0:
        lake.write(
            "merchants",
            merchant(1, business_name="inserted"),
            merchant(2, business_name="inserted"),
            merchant(2, _op="u", business_name="updated"),
            merchant(3, business_name="inserted"),
            {"_op": "d", "id": key(3)},
            merchant(4, _op="r", _lsn=900, business_name="read by the snapshot"),
            merchant(4, _op="u", _lsn=800, business_name="committed after the snapshot"),
            merchant(5, business_name="keeps both", metadata="large", statement_descriptor="large too"),
            merchant(5, _op="u", business_name="keeps one", metadata=UNCHANGED, statement_descriptor=None),
            merchant(5, _op="u", business_name="keeps none", metadata=UNCHANGED, statement_descriptor=UNCHANGED),
            merchant(6, _lsn=500, business_name="first"),
            merchant(6, _op="u", _lsn=600, business_name="second"),
            merchant(6, _lsn=500, business_name="first, replayed by hand"),
            merchant(7, _lsn=500, business_name="inserted"),
            {"_op": "d", "_lsn": 600, "id": key(7)},
        )
        lake.write("customers", customer(1), customer(2, _op="r", _lsn=None), {"_op": "t"}, customer(3))
        lake.write("balance_transactions", movement(1, "charge", 1, _lsn=100), movement(2, "charge", 1, _lsn=700))
    if batch == 1:
        lake.write(
            "merchants",
            merchant(5, _op="u", business_name="keeps old", metadata=UNCHANGED, statement_descriptor=UNCHANGED),
            merchant(7, _lsn=500, business_name="inserted, replayed after its delete"),
            merchant(8, business_name="inserted, then deleted as the newest change"),
            {"_op": "d", "id": key(8)},
        )
        lake.rows["merchants"] = lake.rows["merchants"].append(pa.field("order", pa.string()))
        lake.write("customers", customer(1, _lsn=900), customer(4))
        lake.write("balance_transactions", {"_op": "t", "_lsn": 500}, partition=1)
        lake.write("payment_methods", {"id": key(1)}, {"id": key(2)}, {"_op": "t"}, {"id": key(3)})
        lake.write("disputes", {"id": key(1), "metadata": "large"}, {"id": key(2), "metadata": "large"})
    if batch == 2:
        lake.rows["customers"] = lake.rows["customers"].append(pa.field("credit_limit", pa.int64()))
        lake.write("customers")
        lake.lose("payment_methods", 0, 3)
        lake.write("payment_methods", {"id": key(4)})
        lake.lose("disputes", 0, 1)
        lake.write("disputes", {"id": key(2), "_op": "u", "metadata": UNCHANGED})
        lake.write("merchants", merchant(9, business_name="inserted later", order="in a new column"))
        lake.write("balance_transactions", movement(3, "charge", 1, _lsn=450), movement(4, "charge", 1, _lsn=800))


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Three builds of named cases and of random histories, these set beside the truth after each build."""
    lake = Lake(tmp_path_factory.mktemp("staged"))
    histories = [History(seed, snapshot_lsn=5_000) for seed in range(1, 9)]
    for batch in range(3):
        write_named_cases(lake, batch)
        write_histories(lake, histories, batch)
        build(lake.settings, lake.cut(), "--select", "staging", "--exclude-resource-type", "test")
        truth = {
            (row["id"], row["amount"], row["metadata"], row["description"])
            for history in histories
            for row in history.rows.values()
        }
        staged = "select charge_id, amount, metadata, description from staging.stg_charges"
        lake.compared.append((set(rows_of_build(lake.settings, staged)), truth))
    return lake


# Which partitions lose changes in which build: none, some for the first time, one again and one twice.
LOSSES: dict[int, tuple[int, ...]] = {0: (), 1: (0, 1), 2: (1, 2, 2)}


def write_histories(lake: Lake, histories: list[History], batch: int) -> None:
    if batch == 0:
        write_charges(lake, [change for history in histories for change in history.snapshot(20)])
    step_all(lake, histories, 75)
    for partition in LOSSES[batch]:
        step_all(lake, histories, 30, lost=partition)
        for history in histories:
            history.partition_loses(partition)
        # Changes of rows that the log knows no more come before the rows are read again, and between them.
        step_all(lake, histories, 10)
        write_charges(lake, [row for history in histories for row in history.read_again(partition)])
    step_all(lake, histories, 30)


def step_all(lake: Lake, histories: list[History], count: int, lost: int | None = None) -> None:
    changes = [history.step() for history in histories for _ in range(count)]
    write_charges(lake, [change for change in changes if partition_of(change) != lost])
    if lost is not None:
        lake.lose("charges", lost, count)


def write_charges(lake: Lake, changes: list[dict[str, Any]]) -> None:
    for partition in range(4):
        here = [change for change in changes if partition_of(change) == partition]
        if here:
            lake.write("charges", *here, partition=partition)


def partition_of(change: dict[str, Any]) -> int:
    return UUID(change["id"]).int % 4


def test_staging_equals_the_source_after_every_build_of_random_histories(staged: Lake) -> None:
    for rows, truth in staged.compared:
        assert len(truth) > 100
        assert rows == truth


def names_of_merchants(lake: Lake) -> dict[str, str]:
    return dict(rows_of_build(lake.settings, "select merchant_id, business_name from staging.stg_merchants"))


def test_inserts_updates_and_deletes_leave_the_latest_row_of_each_key(staged: Lake) -> None:
    names = names_of_merchants(staged)
    assert names[key(1)] == "inserted"
    assert names[key(2)] == "updated"
    assert key(3) not in names


def test_a_change_streamed_after_the_snapshot_wins_though_its_lsn_is_lower(staged: Lake) -> None:
    assert names_of_merchants(staged)[key(4)] == "committed after the snapshot"


def test_an_unchanged_large_value_keeps_the_last_known_one_within_and_across_builds(staged: Lake) -> None:
    five = f"where merchant_id = '{key(5)}'"
    kept = f"select business_name, metadata, statement_descriptor from staging.stg_merchants {five}"
    assert rows_of_build(staged.settings, kept) == [("keeps old", "large", None)]


def test_a_replayed_older_change_is_skipped_and_its_offset_still_counts(staged: Lake) -> None:
    assert names_of_merchants(staged)[key(6)] == "second"
    six = f"select _offset, _streamed_lsn from staging_state.state_merchants where id = '{key(6)}'"
    assert rows_of_build(staged.settings, six) == [(12, 600)]


def test_a_replayed_insert_does_not_bring_a_deleted_row_back_in_a_later_build(staged: Lake) -> None:
    assert key(7) not in names_of_merchants(staged)


def test_a_truncate_removes_the_rows_before_it_and_is_remembered_when_one_is_replayed(staged: Lake) -> None:
    rows = rows_of_build(staged.settings, "select customer_id from staging.stg_customers order by all")
    assert rows == [(key(3),), (key(4),)]


def test_a_truncate_in_one_partition_removes_older_rows_of_the_others(staged: Lake) -> None:
    rows = rows_of_build(staged.settings, "select transaction_id from staging.stg_transactions order by all")
    assert rows == [(key(102),), (key(104),)]


def test_a_gap_leaves_nothing_that_was_known_before_it_and_the_truncate_before_it_is_remembered(staged: Lake) -> None:
    rows = rows_of_build(staged.settings, "select payment_method_id from staging.stg_payment_methods")
    assert rows == [(key(4),)]
    marks = "select _offset, _lsn is not null from staging_state.state_payment_methods where id is null"
    assert rows_of_build(staged.settings, marks) == [(6, True)]


def test_an_unchanged_value_is_not_carried_across_a_gap(staged: Lake) -> None:
    disputes = rows_of_build(staged.settings, "select dispute_id, metadata from staging.stg_disputes")
    assert disputes == [(key(2), None)]


def test_the_position_survives_the_delete_of_the_newest_row(staged: Lake) -> None:
    compiled = staged.settings.home / "target/compiled/stripe_platform/models/staging/state/state_merchants.sql"
    newest_before_the_last_build = 15 + 4 - 1
    assert f"(_partition = 0 and _offset > {newest_before_the_last_build})" in compiled.read_text()
    assert names_of_merchants(staged)[key(9)] == "inserted later"


def test_a_new_nullable_column_flows_to_staging_whatever_its_name(staged: Lake) -> None:
    rows = rows_of_build(
        staged.settings, 'select merchant_id, "order" from staging.stg_merchants where "order" is not null'
    )
    assert rows == [(key(9), "in a new column")]


def test_a_new_column_of_a_quiet_table_is_in_staging_with_the_next_build(staged: Lake) -> None:
    rows = rows_of_build(
        staged.settings, "select distinct typeof(credit_limit), credit_limit from staging.stg_customers"
    )
    assert rows == [("BIGINT", None)]


def test_incremental_builds_end_in_the_same_state_as_one_of_the_whole_log(staged: Lake) -> None:
    def state(table: str) -> list[tuple[Any, ...]]:
        # A column that came later stands last in the one and in its place in the other; the builds are others.
        described = rows_of_build(staged.settings, f"describe staging_state.state_{table}")
        columns = ", ".join(sorted(f'"{name}"' for name, *_ in described if name != "_build"))
        return rows_of_build(staged.settings, f"select {columns} from staging_state.state_{table} order by all")

    incremental = {table: state(table) for table in TABLES_BY_NAME}
    build(staged.settings, staged.cut(), "--select", "staging.state", "--full-refresh")
    for table, rows in incremental.items():
        assert state(table) == rows, table


def test_a_run_whose_cut_another_run_has_overtaken_builds_on_the_newer_cut(staged: Lake) -> None:
    with builder(staged.settings):
        newer = prepare_build(staged.settings, staged.cut()).cut
        changes = rows_of_build(staged.settings, "select count(*) from raw.merchants")
        overtaken = replace(newer, id="overtaken", offsets=newer.offsets | {"merchants": {0: 1}})
        assert prepare_build(staged.settings, overtaken).cut == newer
        assert rows_of_build(staged.settings, "select count(*) from raw.merchants") == changes
        assert rows_of_build(staged.settings, "select cut_id from meta.build") == [(newer.id,)]


def test_a_run_goes_on_with_its_own_cut_when_that_is_newer_than_the_build(staged: Lake) -> None:
    with builder(staged.settings):
        prepare_build(staged.settings, staged.cut())
        newer = staged.cut()
        assert prepare_build(staged.settings, newer).cut == newer
        assert rows_of_build(staged.settings, "select cut_id from meta.build") == [(newer.id,)]


def test_a_cut_that_raw_does_not_reach_is_refused(staged: Lake) -> None:
    cut = staged.cut()
    offsets = cut.offsets | {"merchants": {0: 1_000}}
    with builder(staged.settings), pytest.raises(RawIsBehind, match="up to offset 20, the cut needs 1000"):
        prepare_build(staged.settings, replace(cut, offsets=offsets))


def test_a_cut_and_a_log_of_different_topics_are_not_compared(staged: Lake) -> None:
    cut = staged.cut()
    topic_ids = cut.topic_ids | {"merchants": "another"}
    with builder(staged.settings), pytest.raises(TopicWasRecreated, match="recover merchants"):
        prepare_build(staged.settings, replace(cut, topic_ids=topic_ids))


def test_a_cut_before_the_end_of_the_snapshot_that_fills_a_gap_is_refused(staged: Lake) -> None:
    cut = staged.cut()
    end = cut.offsets["disputes"][0]
    log = ChangeLog.existing(staged.settings, "disputes")
    assert log is not None
    log.record_gaps({}, {0: end + 3})
    with builder(staged.settings), pytest.raises(CutInGap, match=rf"offset {end} .* disputes.*from {end + 3} on"):
        prepare_build(staged.settings, cut)
    staged.write("disputes", *({"id": key(2), "_op": "u"} for _ in range(3)))
    with builder(staged.settings):
        assert prepare_build(staged.settings, newer := staged.cut()).cut == newer


# --- From a coherent set of payments to the marts ----------------------------------------------------------------

MERCHANT, OTHER_MERCHANT, CUSTOMER, METHOD = key(1), key(2), key(3), key(4)
BEFORE_MIDNIGHT = datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
AFTER_MIDNIGHT = datetime(2026, 2, 1, tzinfo=UTC)
CHARGE, YEN_CHARGE, FAILED_CHARGE, LATE_CHARGE = key(11), key(12), key(13), key(14)
REFUND, FAILED_REFUND, DISPUTE, PAYOUT = key(21), key(22), key(23), key(99)
DISPUTE_CLOSED = AFTER_MIDNIGHT + timedelta(days=9)


def charge(identity: str, amount: int, currency: str = "eur", **others: Any) -> dict[str, Any]:
    row = {
        "id": identity,
        "merchant_id": MERCHANT,
        "customer_id": CUSTOMER,
        "payment_method_id": METHOD,
        "amount": amount,
        "amount_captured": amount,
        "amount_refunded": 0,
        "currency": currency,
        "status": "succeeded",
        "created": BEFORE_MIDNIGHT,
    }
    return row | others


def movement(number: int, category: str, amount: int, fee: int = 0, **others: Any) -> dict[str, Any]:
    row = {
        "id": key(100 + number),
        "merchant_id": MERCHANT,
        "amount": amount,
        "fee": fee,
        "net": amount - fee,
        "currency": "eur",
        "type": category,
        "reporting_category": category,
        "status": "available",
        "source_type": "charge",
        "source_id": CHARGE,
        "created": BEFORE_MIDNIGHT,
        "available_on": AFTER_MIDNIGHT,
    }
    return row | others


def write_payments(lake: Lake) -> None:
    lake.write("currencies", {"code": "eur", "exponent": 2}, {"code": "jpy", "exponent": 0})
    lake.write("countries", {"iso2": "FR", "name": "France", "region": "Europe"})
    lake.write("exchange_rates", {"day": AFTER_MIDNIGHT.date(), "currency": "jpy", "rate": Decimal("0.006")})
    lake.write("merchants", {"id": MERCHANT, "country": "FR"}, {"id": OTHER_MERCHANT, "country": "FR"})
    lake.write("customers", {"id": CUSTOMER, "country": "FR", "balance": 0})
    lake.write("card_fingerprints", {"fingerprint": "f" * 16, "brand": "visa", "funding": "credit"})
    lake.write("payment_methods", {"id": METHOD, "card_fingerprint": "f" * 16})
    lake.write("charges", charge(CHARGE, 10_000), charge(YEN_CHARGE, 500, "jpy"), partition=0)
    lake.write(
        "charges",
        charge(FAILED_CHARGE, 700, status="failed", amount_captured=0, failure_code="card_declined"),
        charge(LATE_CHARGE, 300, merchant_id=OTHER_MERCHANT, created=AFTER_MIDNIGHT),
        partition=1,
    )
    write_what_follows_charges(lake)
    refund: dict[str, Any] = {"source_type": "refund"}
    dispute: dict[str, Any] = {"source_type": "dispute", "source_id": DISPUTE}
    lake.write(
        "balance_transactions",
        movement(1, "charge", 10_000, 320),
        movement(2, "refund", -2_000, **refund, source_id=REFUND),
        movement(3, "refund", -1_000, **refund, source_id=FAILED_REFUND, payout_id=PAYOUT),
        movement(4, "refund_failure", 1_000, **refund, source_id=FAILED_REFUND),
        movement(5, "dispute", -5_000, 1_500, **dispute),
        movement(6, "dispute_reversal", 5_000, **dispute, payout_id=PAYOUT),
        movement(7, "fee", -50, source_type=None, source_id=None),
        movement(8, "payout", -4_000, 25, source_type="payout", source_id=PAYOUT),
        partition=0,
    )
    lake.write(
        "balance_transactions",
        movement(9, "charge", 500, 15, currency="jpy", source_id=YEN_CHARGE),
        movement(
            10,
            "charge",
            300,
            39,
            merchant_id=OTHER_MERCHANT,
            source_id=LATE_CHARGE,
            created=AFTER_MIDNIGHT,
            available_on=AFTER_MIDNIGHT,
        ),
        partition=3,
    )


def write_what_follows_charges(lake: Lake) -> None:
    of_charge = {"charge_id": CHARGE, "charge_created": BEFORE_MIDNIGHT}
    authorized = {"type": "authorized", "network_status": "approved_by_network"}
    declined = {"type": "issuer_declined", "network_status": "declined_by_network"}
    lake.write("charge_outcomes", of_charge | authorized, of_charge | declined | {"charge_id": FAILED_CHARGE})
    refund = of_charge | {"id": REFUND, "amount": 2_000, "currency": "eur", "status": "succeeded"}
    refund |= {"created": AFTER_MIDNIGHT}
    lake.write("refunds", refund, refund | {"id": FAILED_REFUND, "amount": 1_000, "status": "failed"})
    dispute = {"id": DISPUTE, "amount": 5_000, "currency": "eur", "status": "won", "reason": "general"}
    lake.write("disputes", of_charge | dispute | {"created": BEFORE_MIDNIGHT})
    lake.write(
        "dispute_balance_transactions",
        {"dispute_id": DISPUTE, "kind": "withdrawn", "balance_transaction_id": key(105)},
        {"dispute_id": DISPUTE, "kind": "reinstated", "balance_transaction_id": key(106)},
    )
    closed = {"type": "charge.dispute.closed", "object_id": DISPUTE, "created": DISPUTE_CLOSED}
    lake.write("events", closed | {"id": key(1)})
    payout = {"merchant_id": MERCHANT, "amount": 4_000, "currency": "eur", "status": "paid", "created": AFTER_MIDNIGHT}
    how = {"method": "standard", "type": "bank_account", "reconciliation_status": "completed"}
    lake.write("payouts", payout | how | {"id": PAYOUT})


@pytest.fixture(scope="module")
def payments(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Payments that are built and published at a cut which one more charge lies beyond."""
    lake = Lake(tmp_path_factory.mktemp("payments"))
    write_payments(lake)
    cut = lake.cut()
    lake.write("charges", charge(key(15), 1), partition=0)
    build(lake.settings, cut)
    publish(lake.settings)
    return lake


def test_daily_revenue_counts_each_kind_of_movement_by_utc_day(payments: Lake) -> None:
    revenue = "select day::varchar, merchant_id, currency, gross, refunds, disputes, fees, net from marts.daily_revenue"
    assert sorted(query_rows(payments.settings, revenue)) == [
        ("2026-01-31", MERCHANT, "eur", 10_000, 2_000, 0, 1_870, 6_130),
        ("2026-01-31", MERCHANT, "jpy", 500, 0, 0, 15, 485),
        ("2026-02-01", OTHER_MERCHANT, "eur", 300, 0, 0, 39, 261),
    ]


def test_daily_revenue_counts_the_ledger_rows_of_each_kind(payments: Lake) -> None:
    counts = (
        "select merchant_id, currency, charge_count, refund_count, refund_failure_count, dispute_count, "
        "dispute_reversal_count from marts.daily_revenue"
    )
    assert sorted(query_rows(payments.settings, counts)) == [
        (MERCHANT, "eur", 1, 2, 1, 1, 1),
        (MERCHANT, "jpy", 1, 0, 0, 0, 0),
        (OTHER_MERCHANT, "eur", 1, 0, 0, 0, 0),
    ]


def test_a_charge_carries_its_card_and_what_the_ledger_says_of_it_and_of_its_refunds_and_disputes(
    payments: Lake,
) -> None:
    columns = "charge_id, amount, amount_disputed, currency, status, fee, net, card_brand"
    charges = f"select {columns} from marts.fact_charges"
    assert sorted(query_rows(payments.settings, charges)) == [
        (CHARGE, 10_000, 5_000, "eur", "succeeded", 1_820, 6_180, "visa"),
        (YEN_CHARGE, 500, 0, "jpy", "succeeded", 15, 485, "visa"),
        (FAILED_CHARGE, 700, 0, "eur", "failed", 0, 0, "visa"),
        (LATE_CHARGE, 300, 0, "eur", "succeeded", 39, 261, "visa"),
    ]


def test_refunds_disputes_and_payouts_carry_what_the_ledger_says_of_them(payments: Lake) -> None:
    refunds = "select refund_id, merchant_id, amount, amount_refunded, net, day::varchar from marts.fact_refunds"
    assert sorted(query_rows(payments.settings, refunds)) == [
        (REFUND, MERCHANT, 2_000, 2_000, -2_000, "2026-02-01"),
        (FAILED_REFUND, MERCHANT, 1_000, 0, 0, "2026-02-01"),
    ]
    disputes = (
        "select merchant_id, amount_won, amount_lost, withdrawn, reinstated, fee, net, days_open "
        "from marts.fact_disputes"
    )
    assert query_rows(payments.settings, disputes) == [(MERCHANT, 5_000, 0, 5_000, 5_000, 1_500, -1_500, 10)]
    payouts = "select amount, fee, net, status, day::varchar from marts.fact_payouts"
    assert query_rows(payments.settings, payouts) == [(4_000, 25, -4_025, "paid", "2026-02-01")]


def test_a_payout_is_the_net_of_the_movements_that_it_paid_out(payments: Lake) -> None:
    reconciled = "select payout_id, movements, net, difference, is_reconciled from marts.payout_reconciliation"
    assert query_rows(payments.settings, reconciled) == [(PAYOUT, 2, 4_000, 0, True)]


def test_authorization_is_counted_by_day_card_and_merchant(payments: Lake) -> None:
    rates = (
        "select day::varchar, merchant_id, card_brand, attempted, sent_to_network, authorized, succeeded, "
        "round(payment_success_rate, 3), network_authorization_rate from marts.authorization_rates"
    )
    assert sorted(query_rows(payments.settings, rates)) == [
        ("2026-01-31", MERCHANT, "visa", 3, 2, 1, 2, 0.667, 0.5),
        ("2026-02-01", OTHER_MERCHANT, "visa", 1, 0, 0, 1, 1.0, None),
    ]


def test_a_failed_charge_is_counted_by_its_code(payments: Lake) -> None:
    codes = "select day::varchar, merchant_id, card_brand, decline_code, declined from marts.decline_codes"
    assert query_rows(payments.settings, codes) == [("2026-01-31", MERCHANT, "visa", "card_declined", 1)]


def test_what_lies_beyond_the_cut_is_not_published(payments: Lake) -> None:
    assert query_rows(payments.settings, "select count(*) from staging.stg_charges") == [(4,)]
    assert partitions_off_cut(payments.settings) == []


def test_the_published_file_says_which_cut_it_holds(payments: Lake) -> None:
    cut = published_cut(payments.settings)
    assert cut is not None
    assert cut.offsets["charges"] == {0: 2, 1: 2, 2: 0, 3: 0}


def test_every_day_of_the_date_dimension_from_the_first_charge_month_to_the_cut(payments: Lake) -> None:
    days = query_rows(payments.settings, "select min(day)::varchar, max(day)::varchar, count(*) from marts.dim_date")
    assert days == [("2026-01-01", "2026-02-01", 32)]


# --- Publication --------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published(payments: Lake, tmp_path: Path) -> Settings:
    """A copy of the tested build and its publication, for a test to spoil."""
    home = tmp_path / "home"
    shutil.copytree(payments.settings.warehouse_folder, Settings(stripe_platform_home=home).warehouse_folder)
    return Settings(stripe_platform_home=home)


def test_a_build_whose_tests_have_not_passed_is_not_published(published: Settings) -> None:
    with duckdb.connect(str(build_path(published))) as connection:
        connection.execute("update meta.build set is_tested = false")
    before = digest(published_path(published))
    with pytest.raises(BuildNotTested, match="oltp_to_warehouse"):
        publish(published)
    assert digest(published_path(published)) == before


def test_readers_never_fail_while_the_file_is_replaced_again_and_again(published: Settings, tmp_path: Path) -> None:
    end = tmp_path / "end"
    code = (
        "import io, sys; from pathlib import Path; from stripe_platform.settings import Settings;"
        "from stripe_platform.warehouse.query import query_rows;"
        "settings, end, count = Settings(stripe_platform_home=Path(sys.argv[1])), Path(sys.argv[2]), 0\n"
        "while not end.exists() or count == 0:\n"
        "    assert query_rows(settings, 'select count(*) from marts.fact_charges') == [(4,)]; count += 1\n"
        "print(count)"
    )
    arguments = [sys.executable, "-c", code, str(published.home), str(end)]
    readers = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) for _ in range(2)]
    for _ in range(100):
        publish(published)
    end.touch()
    for reader in readers:
        out, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0
        assert int(out) > 0


@pytest.mark.parametrize("step", ["_copy", "os.replace", "_sync_folder"])
def test_a_crash_while_publishing_leaves_a_whole_file_and_the_next_publication_clears_up(
    published: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Crash(BaseException):
        pass

    def crash(*arguments: Any) -> None:
        if step == "_copy":
            arguments[1].write_bytes(b"half a file")
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(f"stripe_platform.warehouse.build.{step}", crash)
        with pytest.raises(Crash):
            publish(published)
    assert query_rows(published, "select count(*) from marts.fact_charges") == [(4,)]
    publish(published)
    assert {path.name for path in published.warehouse_folder.iterdir()} <= {
        "build.duckdb",
        "warehouse.duckdb",
        "build.lock",
    }


def test_a_second_builder_is_told_who_is_in_the_way(published: Settings) -> None:
    code = (
        "import sys; from datetime import timedelta; from pathlib import Path;"
        "from stripe_platform.settings import Settings;"
        "from stripe_platform.warehouse.build import publish\n"
        "from stripe_platform.warehouse.build_rules import BuilderIsBusy\n"
        "try: publish(Settings(stripe_platform_home=Path(sys.argv[1])), timeout=timedelta(seconds=0.1))\n"
        "except BuilderIsBusy as error: print(error)"
    )
    with builder(published):
        run = subprocess.run(
            [sys.executable, "-c", code, str(published.home)],
            capture_output=True,
            text=True,
            cwd=PROJECT_ROOT,
            timeout=60,
            check=True,
        )
    assert "still held by another builder" in run.stdout


# --- The assets ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warehouse_assets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRIPE_PLATFORM_HOME", str(tmp_path_factory.mktemp("manifest")))
        from stripe_platform.warehouse import assets

        yield assets


def materialize(lake: Lake, assets: ModuleType) -> dg.ExecuteInProcessResult:
    from stripe_platform.warehouse.checks import published_marts_match_their_cut

    save_cut(lake.settings, "an-earlier-run", lake.cut())
    return dg.materialize(
        [assets.warehouse_models, assets.published_marts, published_marts_match_their_cut],
        resources={"settings": lake.settings, "dbt": dbt_resource(lake.settings)},
        raise_on_error=False,
    )


def test_a_failing_blocking_test_leaves_yesterdays_marts_until_a_run_passes(
    payments: Lake, warehouse_assets: ModuleType
) -> None:
    before = digest(published_path(payments.settings))
    # A ledger row that PostgreSQL's own constraint would refuse.
    wrong = movement(11, "charge", 100, 3) | {"net": 100}
    payments.write("balance_transactions", wrong, partition=2)
    failed = materialize(payments, warehouse_assets)
    assert not failed.success
    assert digest(published_path(payments.settings)) == before
    failures = {check.check_name for check in failed.get_asset_check_evaluations() if not check.passed}
    assert "fact_transactions_net_is_amount_less_fee" in failures

    payments.write("balance_transactions", wrong | {"_op": "u", "net": 97}, partition=2)
    passed = materialize(payments, warehouse_assets)
    assert passed.success
    checks = {check.check_name: check.passed for check in passed.get_asset_check_evaluations()}
    assert checks["published_marts_match_their_cut"]
    assert all(checks.values())
    assert query_rows(payments.settings, "select count(*) from marts.fact_transactions") == [(11,)]
    metadata = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in passed.get_asset_materialization_events()
        if event.asset_key
    }
    assert metadata["marts/fact_transactions"]["dagster/row_count"].value == 11
    assert metadata["staging/stg_transactions"]["dagster/row_count"].value == 11
    made_of = metadata["marts/fact_charges"]["dagster/column_lineage"].value
    assert isinstance(made_of, dg.TableColumnLineage)
    assert made_of.deps_by_column["fee"] == [dg.TableColumnDep(dg.AssetKey(["marts", "fact_transactions"]), "fee")]
    assert (
        "dagster/column_schema"
        in warehouse_assets.warehouse_models.specs_by_key[dg.AssetKey(["marts", "fact_charges"])].metadata
    )


def test_the_check_fails_when_the_published_staging_ends_before_the_cut(
    published: Settings, warehouse_assets: ModuleType
) -> None:
    from stripe_platform.warehouse.checks import published_marts_match_their_cut

    path = published_path(published)
    path.chmod(0o644)
    with duckdb.connect(str(path)) as connection:
        connection.execute("delete from staging_state.state_merchants")
    verdict = published_marts_match_their_cut(published)
    assert isinstance(verdict, dg.AssetCheckResult)
    assert not verdict.passed
    assert verdict.metadata["tables"].value == "merchants"


def test_a_run_without_any_cut_says_how_to_make_one(tmp_path: Path, warehouse_assets: ModuleType) -> None:
    with pytest.raises(NoCut, match="oltp_to_warehouse"):
        cut_to_build_on(Settings(stripe_platform_home=tmp_path), "a-run")


def test_the_manifest_is_parsed_anew_only_when_the_project_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(stripe_platform_home=tmp_path)
    with ThreadPoolExecutor() as two:
        first, second = two.map(dbt_manifest, [settings, settings])
    assert first == second
    made = first.stat().st_mtime_ns
    assert dbt_manifest(settings).stat().st_mtime_ns == made
    monkeypatch.setattr("stripe_platform.warehouse.project._digest", lambda settings: "a file was edited")
    assert dbt_manifest(settings).stat().st_mtime_ns > made
    assert dbt_manifest(settings).stat().st_mtime_ns > made


# --- What the documentation says ----------------------------------------------------------------------------------


def test_staging_documents_every_captured_column_with_its_type(stack: Settings) -> None:
    with connect(stack) as connection:
        captured = captured_columns(connection)
    for table, columns in captured.items():
        types = {name: ARROW[kind] for name, kind in documented_columns(table).items()}
        assert {field.name: field.type for field in row_schema(table, columns)} == types, table
