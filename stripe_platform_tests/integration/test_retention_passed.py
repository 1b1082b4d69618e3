"""A topic that lost records unread, or was made again: the table stops, `recover` brings it back, staging agrees."""

import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from stripe_platform.cdc.broker import admin
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.cdc.reader import OffsetsOutOfRange
from stripe_platform.cdc.report import TablesStopped
from stripe_platform.cdc.snapshot import NotCaptured, SnapshotTaken, take_snapshots
from stripe_platform.cdc.topics import ensure_topics, topic_for
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw import recovery
from stripe_platform.raw.change_log import TopicRecreated, next_offsets, row_count
from stripe_platform.raw.drain import drain, drain_up_to
from stripe_platform.raw.integrity import offsets_stored_twice, rows_beyond_offsets
from stripe_platform.raw.recovery import Recovered, RowsLostAgain, recover
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import mark_tested, prepare_build, publish
from stripe_platform.warehouse.build_rules import builder
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT, dbt_environment
from stripe_platform.warehouse.query import query_rows

LIMIT = timedelta(seconds=60)
MERCHANT = (
    "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
    "VALUES (%s, '5411', 'DE', 'eur') RETURNING id::text"
)


@pytest.fixture(scope="module")
def platform(new_platform: Callable[[], Settings]) -> Settings:
    """A stack of its own: these tests delete records and topics."""
    return new_platform()


@pytest.fixture
def lake(platform: Settings, tmp_path: Path) -> Settings:
    """The servers of the platform with a lake and a warehouse of its own."""
    (tmp_path / "secrets").symlink_to(platform.secrets)
    settings = platform.model_copy(update={"stripe_platform_home": tmp_path})
    bring_topics_and_logs_together(settings)
    return settings


def bring_topics_and_logs_together(settings: Settings) -> None:
    """An earlier test may have deleted records that this lake has not."""
    recover(settings, TABLES_BY_NAME, take_snapshots=by_debezium(settings), limit=LIMIT)
    drain_all(settings)


def by_debezium(settings: Settings) -> Callable[[Sequence[str]], Sequence[SnapshotTaken]]:
    return partial(take_snapshots, settings, again=True, limit=LIMIT)


def execute(settings: Settings, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connect(settings) as postgres:
        done = postgres.execute(statement.encode(), values)
        return done.fetchall() if done.description else []


def drain_all(settings: Settings, *tables: str) -> None:
    cut = make_cut(settings, timeout=LIMIT)
    drain_up_to(settings, tables or TABLES_BY_NAME, cut.offsets, limit=LIMIT)


def delete_all_records(settings: Settings, table: str) -> int:
    """What retention does, at once: the topic then begins where it ends."""
    make_cut(settings, timeout=LIMIT)
    ends = last_stable_offsets(settings, [table])[table]
    places = [TopicPartition(topic_for(table), partition, end) for partition, end in ends.items()]
    # In a variable: a client without a reference is closed, and its answers never come.
    client = admin(settings)
    for answer in client.delete_records(places).values():
        answer.result(LIMIT.total_seconds())
    return ends[0]


def recreate_topic(settings: Settings, table: str) -> None:
    client, topic = admin(settings), topic_for(table)
    client.delete_topics([topic])[topic].result(LIMIT.total_seconds())
    waiting = threading.Event()
    for _ in range(600):
        if topic not in client.list_topics(timeout=10).topics:
            break
        waiting.wait(0.1)
    assert ensure_topics(settings) == (topic,)


def build_staging(settings: Settings, table: str) -> None:
    """Drain to a cut, build the table's staging on it and publish that."""
    cut = make_cut(settings, timeout=LIMIT)
    drain_up_to(settings, TABLES_BY_NAME, cut.offsets, limit=LIMIT)
    # Shared, so that dbt reads its project once.
    target = str(settings.secrets.resolve().parent / "target")
    with builder(settings), dbt_environment(settings):
        prepared = prepare_build(settings, cut)
        command = [str(DBT), "--quiet", "run", "--target-path", target, "--log-path", target, "--select"]
        subprocess.run([*command, f"state_{table}", f"stg_{table}"], cwd=PROJECT_DIR, timeout=120, check=True)
        mark_tested(settings, prepared)
    publish(settings)


def assert_staging_is_postgres(settings: Settings) -> None:
    staged = query_rows(settings, "select merchant_id, business_name from staging.stg_merchants")
    assert sorted(staged) == sorted(execute(settings, "SELECT id::text, business_name FROM payments.merchants"))
    ends = "select (select max(_offset) from raw.merchants) = max(_offset) from staging_state.state_merchants"
    assert query_rows(settings, ends) == [(True,)]
    assert offsets_stored_twice(settings, "merchants") == rows_beyond_offsets(settings, "merchants") == 0


def lose_changes(settings: Settings, *, after: Callable[[Settings, str], None] = drain_all) -> tuple[int, int]:
    """Merchants of every fate, and the changes of them `after` a drain or build deleted unread: the gap [from, to)."""
    ids = [execute(settings, MERCHANT, fate)[0][0] for fate in ("stays", "is changed", "is deleted")]
    after(settings, "merchants")
    stored = next_offsets(settings, "merchants")[0]
    execute(settings, "UPDATE payments.merchants SET business_name = 'was changed' WHERE id = %s", ids[1])
    execute(settings, "DELETE FROM payments.merchants WHERE id = %s", ids[2])
    execute(settings, MERCHANT, "came and was lost")
    gap = (stored, delete_all_records(settings, "merchants"))
    execute(settings, MERCHANT, "came after the gap")
    return gap


def test_the_table_stops_and_names_the_gap_and_the_way_back_while_the_others_go_on(lake: Settings) -> None:
    (stored, begin) = lose_changes(lake)
    assert begin > stored
    iso2 = execute(lake, "INSERT INTO payments.countries (iso2, name, region) VALUES ('QQ', 'x', 'x') RETURNING iso2")
    cut = make_cut(lake, timeout=LIMIT)
    with pytest.raises(TablesStopped) as stopped:
        drain(lake, ["merchants", "countries"], bounds=cut.offsets)
    execute(lake, "DELETE FROM payments.countries WHERE iso2 = 'QQ'")
    error = stopped.value.errors.pop("merchants")
    assert isinstance(error, OffsetsOutOfRange)
    assert f"offset {stored} of {topic_for('merchants')} partition 0, which holds [{begin}, " in str(error)
    assert f"the records [{stored}, {begin}) were deleted unread" in str(error)
    assert "`stripe-platform recover merchants`" in str(error)
    assert (iso2, stopped.value.errors) == ([("QQ",)], {})
    assert next_offsets(lake, "countries")[0] >= cut.offsets["countries"][0]
    assert next_offsets(lake, "merchants")[0] == stored


def test_recover_brings_staging_back_to_postgres_and_a_second_one_does_nothing(lake: Settings) -> None:
    stored, begin = lose_changes(lake, after=build_staging)
    asked: list[Sequence[str]] = []

    def take(names: Sequence[str]) -> Sequence[SnapshotTaken]:
        asked.append(names)
        return by_debezium(lake)(names)

    recovered = recover(lake, ["countries", "merchants"], take_snapshots=take, limit=LIMIT)
    assert recovered == {"merchants": Recovered({0: (stored, begin)}, None)}
    build_staging(lake, "merchants")
    assert_staging_is_postgres(lake)
    assert recover(lake, ["countries", "merchants"], take_snapshots=take, limit=LIMIT) == {}
    assert asked == [["merchants"]]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("point", ["before the snapshot", "after the snapshot", "before the drain"])
def test_a_recovery_that_is_ended_at_any_point_is_called_again(
    lake: Settings, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    lose_changes(lake)

    def take(names: Sequence[str]) -> Sequence[SnapshotTaken]:
        if point == "before the snapshot":
            raise Killed
        taken = by_debezium(lake)(names)
        if point == "after the snapshot":
            raise Killed
        return taken

    def drain_not(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "drain_up_to", drain_not)
        with pytest.raises(Killed):
            recover(lake, ["merchants"], take_snapshots=take, limit=LIMIT)
    recover(lake, ["merchants"], take_snapshots=by_debezium(lake), limit=LIMIT)
    build_staging(lake, "merchants")
    assert_staging_is_postgres(lake)


def test_rows_that_are_deleted_while_they_are_read_again_are_read_once_more(lake: Settings) -> None:
    lose_changes(lake)
    taken: list[int] = []

    def take_and_lose(names: Sequence[str], losses: int) -> Sequence[SnapshotTaken]:
        snapshot = by_debezium(lake)(names)
        if len(taken) < losses:
            taken.append(delete_all_records(lake, "merchants"))
        return snapshot

    with pytest.raises(RowsLostAgain, match="retention"):
        recover(lake, ["merchants"], take_snapshots=partial(take_and_lose, losses=3), limit=LIMIT)
    assert len(taken) == 3
    recover(lake, ["merchants"], take_snapshots=partial(take_and_lose, losses=4), limit=LIMIT)
    assert len(taken) == 4
    build_staging(lake, "merchants")
    assert_staging_is_postgres(lake)


def test_a_topic_that_was_made_again_is_begun_anew_and_its_earlier_log_is_kept(lake: Settings) -> None:
    execute(lake, MERCHANT, "of the earlier topic")
    build_staging(lake, "merchants")
    rows = row_count(lake, "merchants")
    recreate_topic(lake, "merchants")
    execute(lake, "UPDATE payments.merchants SET business_name = 'changed since' WHERE business_name = 'stays'")
    with pytest.raises(TablesStopped, match="`stripe-platform recover merchants`") as stopped:
        drain(lake, ["merchants"])
    assert isinstance(stopped.value.errors["merchants"], TopicRecreated)
    recovered = recover(lake, ["merchants"], take_snapshots=by_debezium(lake), limit=LIMIT)
    aside = recovered["merchants"].set_aside
    assert aside is not None
    assert "merchants" in aside.name
    assert list(aside.glob("*.parquet"))
    assert rows > 0
    build_staging(lake, "merchants")
    assert_staging_is_postgres(lake)
    assert recover(lake, ["merchants"], take_snapshots=by_debezium(lake), limit=LIMIT) == {}


def test_a_table_that_is_not_captured_is_refused_by_name(lake: Settings) -> None:
    with pytest.raises(NotCaptured, match="not a captured table: nonsense"):
        recover(lake, ["nonsense"], take_snapshots=by_debezium(lake))
