"""Changes lost before they came to Kafka: nothing is built on the hole, and `recover` is the way back."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import duckdb
import pytest

from stripe_platform.cdc import checks, renewal
from stripe_platform.cdc.connect import ConnectClient
from stripe_platform.cdc.connector import (
    CONNECTOR,
    PositionLost,
    connector_config,
    connector_state,
    lost_position,
    register,
)
from stripe_platform.cdc.cut import Cut, make_cut
from stripe_platform.cdc.holes import ChangesLost, known_holes
from stripe_platform.cdc.offsets import notices_written
from stripe_platform.cdc.slot import SLOT, drop_slot, slot_state
from stripe_platform.cdc.snapshot import pending_snapshots, take_snapshots
from stripe_platform.cdc.snapshot_notices import has_started_since
from stripe_platform.doctor.finding import State
from stripe_platform.doctor.stream import look_at_connector, look_at_slot, look_at_snapshots
from stripe_platform.local import postgres as local_postgres
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw import mending, recovery
from stripe_platform.raw.change_log import parquet_files
from stripe_platform.raw.drain import drain_up_to
from stripe_platform.raw.integrity import offsets_stored_twice, rows_beyond_offsets
from stripe_platform.raw.recovery import Recovered, recover_stream
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import prepare_build
from stripe_platform.warehouse.build_rules import CutInGap, builder

LIMIT = timedelta(seconds=120)
MERCHANT = (
    "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
    "VALUES (%s, '5411', 'DE', 'eur') RETURNING id::text"
)
LOST = Recovered({}, None, before_kafka=True)
# As the raw change log tells it: the last change of a key wins, and nothing from before a gap mark counts.
LATEST = """
WITH gaps AS (SELECT _partition, max(_offset) AS _offset FROM changes WHERE _op = 'g' GROUP BY _partition)
SELECT id, arg_max(business_name, changes._offset)
FROM changes LEFT JOIN gaps USING (_partition)
WHERE id IS NOT NULL AND changes._offset > coalesce(gaps._offset, -1)
GROUP BY id HAVING arg_max(_op, changes._offset) <> 'd'
"""


@pytest.fixture(scope="module")
def settings(new_platform: Callable[[], Settings]) -> Iterator[Settings]:
    """A stack of its own, whose PostgreSQL soon gives up a slot that is not read; all tables are taken and drained."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(local_postgres.SERVER_SETTINGS, "max_slot_wal_keep_size", "64MB")
        settings = new_platform()
        add(settings, "from before")
        drain_all(settings)
        yield settings


@pytest.fixture
def fates(settings: Settings) -> list[str]:
    """Merchants that every store knows: one that will stay, one that will be changed and one that will be deleted."""
    ids = [add(settings, fate) for fate in ("stays", "is changed", "is deleted")]
    drain_all(settings)
    return ids


def until(is_so: Callable[[], bool], limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.2)


def execute(settings: Settings, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connect(settings, autocommit=True) as postgres:
        done = postgres.execute(statement.encode(), values)
        return done.fetchall() if done.description else []


def add(settings: Settings, name: str) -> str:
    return str(execute(settings, MERCHANT, name)[0][0])


def meet(settings: Settings, fates: list[str]) -> None:
    """What shall be lost."""
    execute(settings, "UPDATE payments.merchants SET business_name = 'was changed' WHERE id = %s", fates[1])
    execute(settings, "DELETE FROM payments.merchants WHERE id = %s", fates[2])
    add(settings, "came in the hole")


def drain_all(settings: Settings) -> Cut:
    cut = make_cut(settings, timeout=LIMIT)
    drain_up_to(settings, TABLES_BY_NAME, cut.offsets, limit=LIMIT)
    return cut


def stop_connector(settings: Settings) -> ConnectClient:
    client = ConnectClient(settings.connect_url)
    client.stop(CONNECTOR)
    until(lambda: connector_state(settings).tasks == (), 20, "a stopped connector")
    return client


def assert_raw_is_postgres(settings: Settings) -> None:
    cut = drain_all(settings)
    with duckdb.connect() as database:
        database.read_parquet(parquet_files(settings, "merchants")).create_view("changes")
        known = database.execute(LATEST).fetchall()
    assert sorted(known) == sorted(execute(settings, "SELECT id::text, business_name FROM payments.merchants"))
    assert offsets_stored_twice(settings, "merchants") == rows_beyond_offsets(settings, "merchants") == 0
    with builder(settings):
        assert prepare_build(settings, cut).cut == cut


def verdict(check: Callable[..., object], settings: Settings) -> dg.AssetCheckResult:
    result = check(settings=settings)
    assert isinstance(result, dg.AssetCheckResult)
    return result


def assert_everything_names_the_way_back(settings: Settings, why: str) -> None:
    for stopped in (register, make_cut, take_snapshots_again):
        with pytest.raises(PositionLost, match=rf"{why}.*`stripe-platform recover`"):
            stopped(settings)
    finding = look_at_slot(settings)
    assert (finding.state, "`stripe-platform recover`" in (finding.remedy or "")) == (State.PROBLEM, True)
    result = verdict(checks.connector_reads_the_log, settings)
    assert (result.passed, result.metadata["remedy"].value) == (False, "stripe-platform recover")


def take_snapshots_again(settings: Settings) -> None:
    take_snapshots(settings, again=True, limit=LIMIT)


def test_restarts_kills_and_the_configuration_of_an_earlier_version_leave_no_hole(settings: Settings) -> None:
    client = ConnectClient(settings.connect_url)
    earlier = {key: value for key, value in connector_config().items() if key != "snapshot.include.collection.list"}
    before = notices_written(settings)
    client.put_config(CONNECTOR, earlier | {"snapshot.mode": "no_data"})
    until(lambda: has_started_since(settings, before), 30, "a start of the earlier configuration")
    add(settings, "of the earlier version")
    stop_connector(settings)
    register(settings)
    assert (pending_snapshots(settings), known_holes(settings)) == ((), {})
    assert_raw_is_postgres(settings)


def test_a_slot_dropped_or_made_again_ahead_of_the_stored_offset_stops_everything_until_recover(
    settings: Settings, fates: list[str]
) -> None:
    cut = make_cut(settings, timeout=LIMIT)
    stop_connector(settings)
    drop_slot(settings)
    meet(settings, fates)
    assert_everything_names_the_way_back(settings, "there is no replication slot")
    with pytest.raises(PositionLost):
        recover_stream(settings, ["merchants"])
    execute(settings, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", SLOT)
    ConnectClient(settings.connect_url).resume(CONNECTOR)
    until(lambda: lost_position(settings) is not None, 60, "a connector that does not go on silently")
    assert_everything_names_the_way_back(settings, "the log from where it stopped is gone")
    assert "`stripe-platform recover`" in (look_at_connector(settings).remedy or "")
    recovered = recover_stream(settings, [])
    assert recovered == dict.fromkeys(TABLES_BY_NAME, LOST)
    assert recover_stream(settings, []) == {}
    with builder(settings), pytest.raises(CutInGap):
        prepare_build(settings, cut)
    assert_raw_is_postgres(settings)


def test_offsets_and_slot_gone_together_hold_every_cut_and_build_until_recover(
    settings: Settings, fates: list[str]
) -> None:
    """The connector starts anew then as if nothing were wrong."""
    client = stop_connector(settings)
    drop_slot(settings)
    client.delete_offsets(CONNECTOR)
    meet(settings, fates)
    assert register(settings).is_running
    with pytest.raises(ChangesLost, match=r"merchants.*`stripe-platform recover`"):
        make_cut(settings, timeout=LIMIT)
    assert set(pending_snapshots(settings)) == set(TABLES_BY_NAME)
    finding = look_at_snapshots(settings)
    assert (finding.state, "`stripe-platform recover`" in (finding.remedy or "")) == (State.PROBLEM, True)
    result = verdict(checks.every_table_has_been_snapshotted, settings)
    assert (result.passed, result.metadata["remedy"].value) == (False, "stripe-platform recover")
    # A snapshot alone brings back what was written in the hole, but not what was deleted there.
    take_snapshots_again(settings)
    cut = drain_all(settings)
    with builder(settings), pytest.raises(ChangesLost, match="merchants"):
        prepare_build(settings, cut)
    assert recover_stream(settings, []) == dict.fromkeys(TABLES_BY_NAME, LOST)
    assert_raw_is_postgres(settings)


class Killed(BaseException):
    pass


def die(*_: Any, **__: Any) -> None:
    raise Killed


STEPS = (
    (renewal, "drop_slot"),
    (renewal, "register"),
    (recovery, "recover"),
    (mending, "drain_up_to"),
    (mending, "_read_again"),
    (mending, "_close"),
)


def test_a_slot_that_postgres_gave_up_is_recovered_from_however_often_that_is_killed(
    settings: Settings, fates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_connector(settings)
    meet(settings, fates)
    for _ in range(8):
        execute(settings, "SELECT pg_logical_emit_message(true, 'a test', 'x'), pg_switch_wal()")
    execute(settings, "CHECKPOINT")
    slot = slot_state(settings)
    assert slot is not None
    assert slot.is_lost
    assert_everything_names_the_way_back(settings, "PostgreSQL has removed log")
    for room, step in STEPS:
        with monkeypatch.context() as patched:
            patched.setattr(room, step, die)
            with pytest.raises(Killed):
                recover_stream(settings, [])
    assert set(recover_stream(settings, [])) == set(TABLES_BY_NAME)
    assert_raw_is_postgres(settings)


def test_a_table_that_was_out_of_the_publication_holds_the_cuts_until_it_is_recovered(
    settings: Settings, fates: list[str]
) -> None:
    execute(settings, "ALTER PUBLICATION stripe_platform DROP TABLE payments.merchants")
    meet(settings, fates)
    assert migrate(settings).replication_changed
    with pytest.raises(ChangesLost, match=r"changes of merchants were lost"):
        make_cut(settings, timeout=LIMIT)
    assert recover_stream(settings, ["countries", "merchants"]) == {"merchants": LOST}
    assert_raw_is_postgres(settings)
