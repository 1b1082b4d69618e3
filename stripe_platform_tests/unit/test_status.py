import io
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console

from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings
from stripe_platform.status import (
    PlatformStatus,
    SlotStatus,
    Stage,
    platform_status,
    print_status,
    urls,
)
from stripe_platform.warehouse.published import published_path


def printed(stage: Stage, slot: SlotStatus | None) -> str:
    file = io.StringIO()
    status = PlatformStatus(servers={"Kafka": "RUNNING"}, urls=urls(Settings()), stages=[stage], slot=slot, revenue=[])
    print_status(status, Console(file=file, width=80))
    return file.getvalue()


def test_no_number_is_cut_short_in_a_narrow_terminal() -> None:
    stage = Stage(
        table="dispute_balance_transactions",
        oltp_rows=123_456_789,
        topic_begin_offsets={0: 100_000_000, 1: 11_111_111},
        topic_end_offsets={0: 200_000_000, 1: 22_222_222},
        topic_offset=222_222_222,
        raw_rows=333_333_333,
        staging_rows=444_444_444,
        lag_messages=555_555,
        lag_seconds=66.6,
    )
    slot = SlotStatus(
        state="slot 'a' is read", wal_status="reserved", kept_bytes=77_777, unconfirmed_bytes=0, limit_bytes=888_888
    )
    text = printed(stage, slot)
    for shown in (
        *("dispute_balance_transactions", "123,456,789", "111,111,111", "222,222,222", "333,333,333", "444,444,444"),
        *("555,555", "67 s", "slot 'a' is read", "77,777 bytes of log kept of 888,888 at most"),
    ):
        assert shown in text


def test_what_cannot_be_read_is_shown_as_such() -> None:
    nothing = Stage(
        table="charges",
        oltp_rows=None,
        topic_begin_offsets=None,
        topic_end_offsets=None,
        topic_offset=None,
        raw_rows=None,
        staging_rows=None,
        lag_messages=None,
        lag_seconds=None,
    )
    text = printed(nothing, None)
    assert "Replication slot: none, or it cannot be asked" in text
    (line,) = [line for line in text.splitlines() if "charges" in line]
    assert line.split() == ["charges", *["-"] * 7]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A platform of which no server runs, with a folder for its warehouse."""
    monkeypatch.setattr("stripe_platform.cdc.offsets.REQUEST_LIMIT", timedelta(seconds=1))
    settings = Settings.model_validate(
        {"stripe_platform_home": tmp_path, "postgres_port": 1, "kafka_port": 1, "postgres_password": "none"}
    )
    settings.warehouse_folder.mkdir()
    return settings


def test_an_unreadable_warehouse_costs_seconds_and_the_rest_is_told(nowhere: Settings) -> None:
    published_path(nowhere).write_bytes(b"no database" * 1000)
    started = time.monotonic()
    status = platform_status(nowhere)
    # Opened for each of 26 tables, ten seconds each, it would be minutes.
    assert time.monotonic() - started < 20
    assert {stage.staging_rows for stage in status.stages} == {None}
    assert status.revenue == []
    assert [stage.table for stage in status.stages] == list(TABLES_BY_NAME)


def test_rows_are_counted_of_the_staging_models_that_are_there_in_one_opening_of_the_file(
    nowhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with duckdb.connect(str(published_path(nowhere))) as connection:
        connection.execute("create schema staging")
        connection.execute("create table staging.stg_charges as select * from range(7)")
    connect, opened = duckdb.connect, []

    def counted(*arguments: Any, **named: Any) -> duckdb.DuckDBPyConnection:
        opened.append(arguments)
        return connect(*arguments, **named)

    monkeypatch.setattr(duckdb, "connect", counted)
    rows = {stage.table: stage.staging_rows for stage in platform_status(nowhere).stages}
    assert (rows.pop("charges"), set(rows.values())) == (7, {None})
    assert opened == [(str(published_path(nowhere)),)]
