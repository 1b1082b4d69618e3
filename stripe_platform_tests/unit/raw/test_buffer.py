"""What has been read of a table is held, decoded in slices, and committed with the offsets after it."""

import json
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from stripe_platform.cdc.envelope import Layout, UndecodableRecord
from stripe_platform.raw import buffer
from stripe_platform.raw.buffer import Point, TableBuffer
from stripe_platform.raw.change_log import ChangeLog, LostRace, next_offsets, parquet_files
from stripe_platform.raw.schema import SchemaChanged, UnknownToCatalog
from stripe_platform.settings import Settings

ROW = pa.schema({"id": pa.string(), "amount": pa.int64()})
WIDER = pa.schema([*ROW, pa.field("nickname", pa.string())])


def value(id: str, **more: Any) -> bytes:
    source = {"table": "charges", "ts_us": 1_795_381_402_734_349, "lsn": 1, "snapshot": "false"}
    return json.dumps({"op": "c", "after": {"id": id, "amount": 5} | more, "source": source}).encode()


class Held:
    """A buffer on a log of its own, with what it asked for and where it was."""

    def __init__(self, settings: Settings, bounds: Mapping[int, int] | None = None) -> None:
        self.definition = ROW
        self.points: list[Point] = []
        log = ChangeLog.open(settings, "charges", row=ROW, topic_id="a")
        self.buffer = TableBuffer(
            log,
            Layout("charges", ("id",), log.readable(ROW), "placeholder"),
            row=ROW,
            bounds=bounds or {},
            definition=lambda: self.definition,
            at=self.points.append,
        )


@pytest.fixture
def held(settings: Settings) -> Held:
    return Held(settings)


def stored(settings: Settings, what: str) -> list[tuple[Any, ...]]:
    rows = duckdb.read_parquet(parquet_files(settings, "charges"), union_by_name=True)
    return rows.order("_partition, _offset").select(what).fetchall()


def test_records_of_all_partitions_come_in_one_commit_with_the_offsets_after_them(
    settings: Settings, held: Held
) -> None:
    for partition, offset in ((0, 0), (2, 5), (0, 1)):
        held.buffer.take(partition, offset, value(f"{partition}-{offset}"))
    held.buffer.take(1, 3, None)
    held.buffer.reach_end(0, 4)
    assert held.buffer.flush() == 3
    assert held.points == ["decoded", "committing", "committed"]
    assert stored(settings, "id") == [("0-0",), ("0-1",), ("2-5",)]
    assert next_offsets(settings, "charges") == {0: 4, 1: 4, 2: 6, 3: 0}
    assert (held.buffer.rows, held.buffer.size, held.buffer.age) == (0, 0, 0.0)


def test_markers_alone_move_the_offsets(settings: Settings, held: Held) -> None:
    held.buffer.reach_end(3, 2)
    assert held.buffer.flush() == 0
    assert next_offsets(settings, "charges")[3] == 2


def test_nothing_read_makes_no_commit(held: Held) -> None:
    for partition in range(4):
        held.buffer.reach_end(partition, 0)
    assert held.buffer.flush() == 0
    assert held.points == []


def test_it_is_caught_up_at_the_end_of_every_partition_and_past_every_bound(settings: Settings) -> None:
    buffer = Held(settings, bounds={1: 5}).buffer
    for partition in range(4):
        assert not buffer.is_caught_up
        buffer.reach_end(partition, 0)
    assert not buffer.is_caught_up
    buffer.take(1, 4, value("a"))
    assert not buffer.is_caught_up
    buffer.reach_end(1, 5)
    assert buffer.is_caught_up


def test_full_slices_are_decoded_at_once_and_flushed_together(
    settings: Settings, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "DECODE_RECORDS", 2)
    for offset in range(5):
        held.buffer.take(0, offset, value(str(offset)))
    assert held.points == ["decoded", "decoded"]
    assert held.buffer.rows == 5
    assert held.buffer.flush() == 5
    assert stored(settings, "id") == [(str(offset),) for offset in range(5)]


def test_a_poisoned_record_leaves_the_log_as_it_was(settings: Settings, held: Held) -> None:
    held.buffer.take(0, 0, value("a"))
    held.buffer.take(0, 1, b"{}")
    with pytest.raises(UndecodableRecord, match="offset 1"):
        held.buffer.flush()
    assert next_offsets(settings, "charges")[0] == 0
    assert parquet_files(settings, "charges") == []


def test_a_new_column_is_followed_in_the_middle_of_a_batch(
    settings: Settings, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "DECODE_RECORDS", 1)
    held.buffer.take(0, 0, value("a"))
    held.definition = WIDER
    held.buffer.take(0, 1, value("b", nickname="bee"))
    assert held.buffer.flush() == 2
    assert stored(settings, "id, nickname") == [("a", None), ("b", "bee")]
    assert len(set(stored(settings, "_schema_version"))) == 2


def test_a_column_that_the_catalog_does_not_know_stops_the_table_with_the_way_to_keep_its_values(
    settings: Settings, held: Held
) -> None:
    held.buffer.take(0, 0, value("a", nickname="bee"))
    with pytest.raises(UnknownToCatalog, match=r"nickname; add each again.*accept-schema charges"):
        held.buffer.flush()
    assert next_offsets(settings, "charges")[0] == 0
    # As the error says: with the column added again, what waits is read.
    held.definition = WIDER
    assert held.buffer.flush() == 1
    assert stored(settings, "id, nickname") == [("a", "bee")]


def test_changes_are_not_committed_under_a_definition_that_was_over_when_they_were_read(
    settings: Settings, held: Held
) -> None:
    held.buffer.take(0, 0, value("a"))
    held.definition = pa.schema([ROW.field("id")])
    with pytest.raises(SchemaChanged, match="amount is gone"):
        held.buffer.flush()
    assert next_offsets(settings, "charges")[0] == 0


@pytest.mark.parametrize("definition", [ROW, pa.schema([ROW.field("id")])])
def test_what_the_log_was_told_meanwhile_is_no_reason_to_stop(
    settings: Settings, held: Held, definition: pa.Schema
) -> None:
    """A column that another drain followed and that is gone since, and a drop that was accepted."""
    more = {"nickname": "bee"} if definition == ROW else {}
    ChangeLog.open(settings, "charges", row=WIDER, topic_id="a").accept(definition)
    held.definition = definition
    held.buffer.take(0, 0, value("a", **more))
    with pytest.raises(LostRace):
        held.buffer.flush()


def test_changes_from_before_an_accepted_drop_keep_their_values_when_they_are_read_after_it(settings: Settings) -> None:
    log = ChangeLog.open(settings, "charges", row=WIDER, topic_id="a")
    log.accept(ROW)
    held = Held(settings)
    held.buffer.take(0, 0, value("a", nickname="bee"))
    held.buffer.take(0, 1, value("b"))
    assert held.buffer.flush() == 2
    assert stored(settings, "id, nickname") == [("a", "bee"), ("b", None)]
