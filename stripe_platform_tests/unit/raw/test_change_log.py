"""A raw change log takes each batch once: its offsets are compared and set in the commit of the rows."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.table import TableAlterer

from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.raw.change_log import (
    CHECKPOINT_EVERY_COMMITS,
    DEFINITION,
    TOPIC_ID,
    ChangeLog,
    LostRace,
    TopicRecreated,
    columns,
    next_offsets,
    parquet_files,
    row_count,
    set_aside,
)
from stripe_platform.raw.integrity import offsets_stored_twice, rows_beyond_offsets
from stripe_platform.raw.maintenance import maintain
from stripe_platform.raw.schema import (
    NUMBER,
    FollowedColumn,
    SchemaChanged,
    SchemaNotAcceptable,
    log_schema,
    versioned,
)
from stripe_platform.settings import Settings

TABLE = "charges"
ROW = pa.schema({"id": pa.string(), "amount": pa.int64()})
WIDER = pa.schema([*ROW, pa.field("nickname", pa.string())])
TOPIC = "DtVnbkR4QkKVbO0YdYLw8A"


def open_log(settings: Settings, row: pa.Schema = ROW, topic_id: str = TOPIC) -> ChangeLog:
    return ChangeLog.open(settings, TABLE, row=row, topic_id=topic_id)


def changes(offsets: range, partition: int = 0, row: pa.Schema = ROW) -> pa.Table:
    values = [
        {"id": f"{partition}-{offset}", "amount": offset, "_op": "c", "_partition": partition}
        | {"_offset": offset, "_unchanged": []}
        for offset in offsets
    ]
    return versioned(pa.Table.from_pylist(values, schema=pa.schema([*row, *CHANGE_FIELDS])), row)


def existing(settings: Settings) -> ChangeLog:
    log = ChangeLog.existing(settings, TABLE)
    assert log is not None
    return log


def stored_ids(settings: Settings) -> list[str]:
    rows = duckdb.read_parquet(parquet_files(settings, TABLE)).select("id").fetchall()
    return sorted(id for (id,) in rows)


def test_a_new_log_begins_at_offset_zero_of_every_partition(settings: Settings) -> None:
    beginning = {0: 0, 1: 0, 2: 0, 3: 0}
    assert next_offsets(settings, TABLE) == beginning
    assert open_log(settings).next_offsets == beginning
    assert next_offsets(settings, TABLE) == beginning
    assert (row_count(settings, TABLE), parquet_files(settings, TABLE)) == (0, [])


def test_rows_and_offsets_come_in_together(settings: Settings) -> None:
    log = open_log(settings)
    log.append(changes(range(3)), {0: 3, 1: 0, 2: 0, 3: 0})
    log.append(changes(range(5, 7), partition=2), {0: 3, 1: 0, 2: 8, 3: 0})
    assert next_offsets(settings, TABLE) == log.next_offsets == {0: 3, 1: 0, 2: 8, 3: 0}
    assert stored_ids(settings) == ["0-0", "0-1", "0-2", "2-5", "2-6"]
    assert row_count(settings, TABLE) == 5
    assert all(Path(file).is_file() for file in parquet_files(settings, TABLE))


def test_a_batch_without_rows_still_moves_the_offsets(settings: Settings) -> None:
    open_log(settings).append(changes(range(0)), {0: 9, 1: 0, 2: 0, 3: 0})
    assert next_offsets(settings, TABLE)[0] == 9
    assert row_count(settings, TABLE) == 0


@pytest.mark.parametrize("winner_has_rows", [True, False])
@pytest.mark.parametrize("loser_has_rows", [True, False])
def test_of_two_writers_that_read_the_same_offsets_one_loses_and_writes_nothing(
    settings: Settings, winner_has_rows: bool, loser_has_rows: bool
) -> None:
    first, second = open_log(settings), open_log(settings)
    batch = {True: changes(range(3)), False: changes(range(0))}
    first.append(batch[winner_has_rows], {0: 3, 1: 0, 2: 0, 3: 0})
    with pytest.raises(LostRace):
        second.append(batch[loser_has_rows], {0: 3, 1: 0, 2: 0, 3: 0})
    assert row_count(settings, TABLE) == (3 if winner_has_rows else 0)
    assert second.next_offsets[0] == 0


def test_a_writer_many_commits_behind_loses_even_past_a_checkpoint(settings: Settings) -> None:
    stale, log = open_log(settings), open_log(settings)
    for offset in range(1, CHECKPOINT_EVERY_COMMITS + 5):
        log.append(changes(range(offset - 1, offset)), {0: offset})
    with pytest.raises(LostRace):
        stale.append(changes(range(1)), {0: 1})
    assert offsets_stored_twice(settings, TABLE) == 0
    # And the offsets outlive the checkpoint.
    assert next_offsets(settings, TABLE)[0] == CHECKPOINT_EVERY_COMMITS + 4


def test_the_loser_goes_on_from_the_stored_offsets(settings: Settings) -> None:
    first, second = open_log(settings), open_log(settings)
    first.append(changes(range(3)), {0: 3})
    with pytest.raises(LostRace):
        second.append(changes(range(5)), {0: 5})
    again = open_log(settings)
    assert again.next_offsets[0] == 3
    again.append(changes(range(3, 5)), {0: 5})
    assert stored_ids(settings) == [f"0-{offset}" for offset in range(5)]


def test_two_writers_of_different_partitions_both_pass(settings: Settings) -> None:
    first, second = open_log(settings), open_log(settings)
    first.append(changes(range(2)), {0: 2, 1: 0})
    second.append(changes(range(2), partition=1), {0: 0, 1: 2})
    assert next_offsets(settings, TABLE) == {0: 2, 1: 2, 2: 0, 3: 0}
    assert row_count(settings, TABLE) == 4


def test_a_writer_that_saw_another_partition_move_knows_it_before_its_next_batch(settings: Settings) -> None:
    first, second = open_log(settings), open_log(settings)
    first.append(changes(range(2)), {0: 2, 1: 0})
    second.append(changes(range(2), partition=1), {0: 0, 1: 2})
    with pytest.raises(LostRace):
        second.append(changes(range(2)), {0: 2, 1: 2})
    assert offsets_stored_twice(settings, TABLE) == 0


def test_a_gap_mark_below_offsets_that_another_writer_moves_meanwhile_is_refused(settings: Settings) -> None:
    open_log(settings).append(changes(range(2)), {0: 3})
    marking, drain = open_log(settings), open_log(settings)
    drain.append(changes(range(3, 5)), {0: 6})
    with pytest.raises(LostRace):
        marking.record_gaps({0: 3}, {0: 4})
    assert existing(settings).operations_at({0: 2, 1: 2}) == {}
    open_log(settings).record_gaps({0: 6}, {0: 7})
    assert existing(settings).operations_at({0: 5, 1: 5}) == {0: "g"}
    assert existing(settings).next_offsets[0] == 6


def test_a_log_knows_the_holes_that_it_has_made_up_for_and_no_others(settings: Settings) -> None:
    log = open_log(settings)
    log.append(changes(range(2)), {0: 3})
    log.record_gaps({0: 3}, {0: 4})
    log.record_made_up_for("one", {0: 9})
    maintain(settings, TABLE)
    again = existing(settings)
    assert (again.has_made_up_for("one"), again.has_made_up_for("other")) == (True, False)
    assert (again.whole_from, again.next_offsets[0]) == ({0: 9}, 3)


def test_compaction_beside_an_append_harms_neither(settings: Settings) -> None:
    log = open_log(settings)
    for offset in range(1, 5):
        log.append(changes(range(offset - 1, offset)), {0: offset})
    behind = DeltaTable(settings.lake / TABLE)
    log.append(changes(range(4, 5)), {0: 5})
    behind.optimize.compact()
    log.append(changes(range(5, 6)), {0: 6})
    assert stored_ids(settings) == [f"0-{offset}" for offset in range(6)]
    assert next_offsets(settings, TABLE)[0] == 6
    assert len(parquet_files(settings, TABLE)) < 6


def test_adding_a_column_lets_no_stale_writer_through(settings: Settings) -> None:
    stale, other = open_log(settings), open_log(settings)
    other.append(changes(range(3)), {0: 3})
    # Its own commit brings the stale writer to the newest version, past what the other wrote.
    stale.follow(WIDER)
    with pytest.raises(LostRace):
        stale.append(changes(range(3), row=WIDER), {0: 3})
    assert row_count(settings, TABLE) == 3


def test_a_new_column_is_null_in_older_rows(settings: Settings) -> None:
    open_log(settings).append(changes(range(1)), {0: 1})
    log = open_log(settings, WIDER)
    log.append(changes(range(1, 2), row=WIDER), {0: 2})
    stored = duckdb.read_parquet(parquet_files(settings, TABLE), union_by_name=True)
    assert stored.select("id, nickname").order("id").fetchall() == [("0-0", None), ("0-1", None)]
    versions = stored.select("_schema_version").distinct().fetchall()
    assert len(versions) == 2
    schema = columns(settings, TABLE)
    assert schema is not None
    assert "nickname" in schema.names


def test_a_dropped_column_is_refused_when_the_log_is_opened(settings: Settings) -> None:
    open_log(settings)
    with pytest.raises(SchemaChanged, match="amount is gone"):
        open_log(settings, pa.schema({"id": pa.string()}))


def test_an_accepted_drop_keeps_the_old_values_and_null_comes_after(settings: Settings) -> None:
    open_log(settings, WIDER).append(changes(range(1), row=WIDER), {0: 1})
    existing(settings).accept(ROW)
    log = open_log(settings)
    assert log.readable(ROW) == WIDER
    log.append(changes(range(1, 2), row=WIDER), {0: 2})
    assert (list(log.followed), log.columns) == (["id", "amount"], WIDER)
    assert row_count(settings, TABLE) == 2


def test_accepting_again_makes_no_commit(settings: Settings) -> None:
    open_log(settings, WIDER)
    existing(settings).accept(ROW)
    version = DeltaTable(settings.lake / TABLE).version()
    existing(settings).accept(ROW)
    assert DeltaTable(settings.lake / TABLE).version() == version


def test_a_column_that_comes_again_after_an_accepted_drop_is_refused_until_it_is_accepted(settings: Settings) -> None:
    open_log(settings, WIDER)
    existing(settings).accept(ROW)
    with pytest.raises(SchemaChanged, match="nickname is another one"):
        open_log(settings, WIDER)
    existing(settings).accept(WIDER)
    assert list(open_log(settings, WIDER).followed) == ["id", "amount", "nickname"]
    with pytest.raises(SchemaChanged, match="nickname is gone"):
        open_log(settings)


def numbered(row: pa.Schema, *numbers: int) -> pa.Schema:
    """The columns with these numbers of PostgreSQL's catalog."""
    return pa.schema([field.with_metadata({NUMBER: str(number)}) for field, number in zip(row, numbers, strict=True)])


@pytest.mark.parametrize("recorded", [None, {"id": "string", "amount": "int64"}])
def test_a_log_from_before_columns_had_numbers_takes_them_over_and_then_knows_another_column_by_them(
    settings: Settings, recorded: dict[str, str] | None
) -> None:
    open_log(settings).append(changes(range(1)), {0: 1})
    properties = {DEFINITION: json.dumps(recorded)} if recorded else {}
    DeltaTable.create(
        settings.lake / TABLE,
        log_schema(ROW),
        mode="overwrite",
        configuration={TOPIC_ID: TOPIC} | properties,
        raise_if_key_not_exists=False,
    )
    assert list(open_log(settings, numbered(ROW, 1, 2)).followed.values()) == [
        FollowedColumn("string", 1),
        FollowedColumn("int64", 2),
    ]
    with pytest.raises(SchemaChanged, match="column amount is another one"):
        open_log(settings, numbered(ROW, 1, 3))


def test_following_that_ends_between_its_two_commits_is_done_by_the_next_drain(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_log(settings, numbered(ROW, 1, 2))
    wider = numbered(WIDER, 1, 2, 3)
    with monkeypatch.context() as patched:
        patched.setattr(TableAlterer, "add_columns", killed)
        with pytest.raises(KeyboardInterrupt):
            open_log(settings, wider)
    assert open_log(settings, wider).columns == WIDER


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_writer_knows_that_another_has_committed_since_it_opened_the_log(settings: Settings) -> None:
    first, second = open_log(settings), open_log(settings)
    assert not second.has_moved
    first.append(changes(range(1)), {0: 1})
    assert (first.has_moved, second.has_moved) == (False, True)


def test_of_two_that_make_the_log_at_once_one_begins_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ChangeLog, "existing", classmethod(lambda *_: None))
        open_log(settings, WIDER)
        with pytest.raises(LostRace):
            open_log(settings)
    assert existing(settings).columns == WIDER


def test_an_accepted_rename_is_a_drop_and_an_addition(settings: Settings) -> None:
    open_log(settings).append(changes(range(1)), {0: 1})
    renamed = pa.schema({"id": pa.string(), "total": pa.int64()})
    existing(settings).accept(renamed)
    log = open_log(settings, renamed)
    assert log.columns.names == ["id", "amount", "total"]
    assert list(log.followed) == ["id", "total"]


def test_an_accepted_narrower_type_leaves_the_log_s_wider_one(settings: Settings) -> None:
    narrower = pa.schema({"id": pa.string(), "amount": pa.int32()})
    open_log(settings).append(changes(range(1)), {0: 1})
    with pytest.raises(SchemaChanged, match="amount was int64 and is int32"):
        open_log(settings, narrower)
    existing(settings).accept(narrower)
    log = open_log(settings, narrower)
    assert log.columns.field("amount").type == pa.int64()
    with pytest.raises(SchemaChanged, match="amount was int32 and is int64"):
        open_log(settings)


NARROW = pa.schema({"id": pa.string(), "amount": pa.int32()})


def test_an_accepted_wider_type_is_made_room_for_with_rows_offsets_and_topic_kept(settings: Settings) -> None:
    log = open_log(settings, NARROW)
    for offset in range(3):
        log.append(changes(range(offset, offset + 1), row=NARROW), {0: offset + 1})
    existing(settings).accept(ROW)
    log = open_log(settings)
    assert log.next_offsets[0] == 3
    large = changes(range(2**40, 2**40 + 1))
    log.append(large, {0: 2**40 + 1})
    stored = duckdb.read_parquet(parquet_files(settings, TABLE)).order("_offset")
    assert stored.select("id, amount").fetchall() == [
        *((f"0-{offset}", offset) for offset in range(3)),
        (f"0-{2**40}", 2**40),
    ]


def test_a_widening_keeps_the_rows_that_came_meanwhile_and_a_writer_from_before_it_loses(settings: Settings) -> None:
    first, stale, widening = open_log(settings, NARROW), open_log(settings, NARROW), existing(settings)
    first.append(changes(range(2), row=NARROW), {0: 2})
    widening.accept(ROW)
    with pytest.raises(LostRace):
        stale.append(changes(range(2), row=NARROW), {0: 2})
    assert row_count(settings, TABLE) == 2
    assert next_offsets(settings, TABLE)[0] == 2
    assert offsets_stored_twice(settings, TABLE) == 0


def test_a_widening_that_was_begun_before_a_compaction_doubles_nothing(settings: Settings) -> None:
    log = open_log(settings, NARROW)
    for offset in range(4):
        log.append(changes(range(offset, offset + 1), row=NARROW), {0: offset + 1})
    widening = existing(settings)
    maintain(settings, TABLE)
    with pytest.raises(LostRace):
        widening.accept(ROW)
    existing(settings).accept(ROW)
    assert row_count(settings, TABLE) == 4
    assert offsets_stored_twice(settings, TABLE) == 0


def test_a_log_whose_topic_has_a_slash_in_its_id_is_set_aside_under_its_table_s_name(settings: Settings) -> None:
    open_log(settings, topic_id="L74/ZGxDSY2okdOOqin9gw").append(changes(range(3)), {0: 3})
    aside = set_aside(settings, TABLE)
    assert aside.parent == settings.lake.with_name("set_aside")
    assert aside.name.startswith(f"{TABLE}-")
    assert DeltaTable(aside).to_pyarrow_table().num_rows == 3
    assert ChangeLog.existing(settings, TABLE) is None


def test_the_files_of_a_log_that_was_set_aside_stay_for_who_listed_them_until_the_upkeep_deletes_them(
    settings: Settings,
) -> None:
    open_log(settings).append(changes(range(3)), {0: 3})
    listed = parquet_files(settings, TABLE)
    for file in listed:
        os.utime(file, (0, 0))
    aside = set_aside(settings, TABLE)
    open_log(settings, topic_id="another").append(changes(range(1)), {0: 1})
    maintain(settings, TABLE)
    assert len(duckdb.read_parquet(listed).fetchall()) == 3
    assert stored_ids(settings) == ["0-0"]
    two_days_ago = time.time() - 2 * 24 * 3600
    for file in listed:
        os.utime(file, (two_days_ago, two_days_ago))
    # A publication from before it was set aside is read to this day.
    maintain(settings, TABLE, read_since=datetime.now(UTC) - timedelta(days=3))
    assert all(Path(file).exists() for file in listed)
    maintain(settings, TABLE)
    assert not any(Path(file).exists() for file in listed)
    assert DeltaTable(aside).to_pyarrow_table().num_rows == 3


def test_setting_aside_that_ends_early_is_done_by_the_next(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    open_log(settings).append(changes(range(3)), {0: 3})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            set_aside(settings, TABLE)
    assert stored_ids(settings) == ["0-0", "0-1", "0-2"]
    assert DeltaTable(set_aside(settings, TABLE)).to_pyarrow_table().num_rows == 3
    assert ChangeLog.existing(settings, TABLE) is None


def test_a_change_of_type_that_nothing_holds_leaves_the_log_as_it_was(settings: Settings) -> None:
    open_log(settings)
    with pytest.raises(SchemaNotAcceptable, match=r"charges\.amount is int64"):
        existing(settings).accept(pa.schema({"id": pa.string(), "amount": pa.string()}))
    assert open_log(settings).columns == ROW


def test_a_topic_that_was_created_again_is_refused_with_the_remedy(settings: Settings) -> None:
    open_log(settings).append(changes(range(3)), {0: 3})
    with pytest.raises(
        TopicRecreated, match=r"stripe\.payments\.charges.*lake/raw/charges.*stripe-platform recover charges"
    ):
        open_log(settings, topic_id="another")
    assert next_offsets(settings, TABLE)[0] == 3


def test_a_commit_stays_cheap_to_read_as_the_log_grows(settings: Settings) -> None:
    log = open_log(settings)
    for offset in range(1, 2 * CHECKPOINT_EVERY_COMMITS + 2):
        log.append(changes(range(offset - 1, offset)), {0: offset})
    entries = list((settings.lake / TABLE / "_delta_log").glob("*.checkpoint.parquet"))
    assert len(entries) == 2


def test_an_offset_that_is_stored_twice_is_counted(settings: Settings) -> None:
    log = open_log(settings)
    log.append(changes(range(5)), {0: 5})
    assert (offsets_stored_twice(settings, TABLE), rows_beyond_offsets(settings, TABLE)) == (0, 0)
    # The same records under offsets that say they are new.
    log.append(changes(range(3, 5)), {0: 7})
    assert offsets_stored_twice(settings, TABLE) == 2


def test_rows_past_the_stored_offset_are_counted(settings: Settings) -> None:
    open_log(settings).append(changes(range(5)), {0: 3})
    assert rows_beyond_offsets(settings, TABLE) == 2


def test_an_empty_log_breaks_no_rule(settings: Settings) -> None:
    assert (offsets_stored_twice(settings, TABLE), rows_beyond_offsets(settings, TABLE)) == (0, 0)
