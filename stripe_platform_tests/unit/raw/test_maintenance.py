"""The upkeep of a raw change log changes no row and no offset, whoever reads and writes beside it."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ByteSize

from stripe_platform.cdc.cut import Cut
from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.raw import maintenance
from stripe_platform.raw.change_log import ChangeLog, LostRace, next_offsets, parquet_files, row_count
from stripe_platform.raw.integrity import offsets_stored_twice, rows_beyond_offsets
from stripe_platform.raw.maintenance import (
    KEPT,
    LONGEST_KEPT,
    SHORTEST_KEPT,
    RetentionTooShort,
    TableMaintained,
    TablesNotMaintained,
    maintain,
    maintain_all,
)
from stripe_platform.raw.maintenance_assets import maintenance as maintenance_asset
from stripe_platform.raw.rewriting import only_rewriter
from stripe_platform.raw.schema import versioned
from stripe_platform.settings import Settings

TABLE = "charges"
ROW = pa.schema({"id": pa.string()})
LIMIT_SECONDS = 60
DAYS_OLD = timedelta(days=3)


def open_log(settings: Settings) -> ChangeLog:
    return ChangeLog.open(settings, TABLE, row=ROW, topic_id="a")


def changes(partition: int, offsets: range) -> pa.Table:
    rows = [
        {"id": f"{partition}-{offset}", "_op": "c", "_partition": partition, "_offset": offset, "_unchanged": []}
        for offset in offsets
    ]
    return versioned(pa.Table.from_pylist(rows, schema=pa.schema([*ROW, *CHANGE_FIELDS])), ROW)


def append_one_by_one(settings: Settings, count: int) -> None:
    log = open_log(settings)
    for _ in range(count):
        offset = log.next_offsets[0]
        log.append(changes(0, range(offset, offset + 1)), {0: offset + 1})


def places(files: list[str]) -> list[tuple[int, int]]:
    if not files:
        return []
    with duckdb.connect() as connection:
        return sorted(connection.read_parquet(files).select("_partition, _offset").fetchall())


def folder(settings: Settings) -> Path:
    return settings.lake / TABLE


def files_on_disk(settings: Settings) -> set[str]:
    return {file.name for file in folder(settings).glob("*.parquet")}


def log_entries(settings: Settings) -> list[str]:
    return sorted(entry.name for entry in (folder(settings) / "_delta_log").iterdir())


def age(paths: Iterator[Path], by: timedelta) -> None:
    then = time.time() - by.total_seconds()
    for path in paths:
        os.utime(path, (then, then))


def delete_what_was_replaced(settings: Settings) -> list[str]:
    """What a vacuum does once the time is over, at once."""
    return DeltaTable(folder(settings)).vacuum(0, dry_run=False, enforce_retention_duration=False)


def test_many_small_files_become_one_and_no_row_or_offset_changes(settings: Settings) -> None:
    append_one_by_one(settings, 30)
    before = places(parquet_files(settings, TABLE))
    report = maintain(settings, TABLE)
    assert (report.files_before, report.files_after, report.is_compacted) == (30, 1, True)
    assert report.bytes_after == Path(parquet_files(settings, TABLE)[0]).stat().st_size < report.bytes_before
    assert places(parquet_files(settings, TABLE)) == before
    assert next_offsets(settings, TABLE) == {0: 30, 1: 0, 2: 0, 3: 0}


def test_an_idle_log_is_left_untouched(settings: Settings) -> None:
    append_one_by_one(settings, 30)
    maintain(settings, TABLE)
    before = (log_entries(settings), files_on_disk(settings), DeltaTable(folder(settings)).version())
    report = maintain(settings, TABLE)
    assert (report.files_before, report.files_after, report.files_deleted) == (1, 1, 0)
    assert (log_entries(settings), files_on_disk(settings), DeltaTable(folder(settings)).version()) == before


def test_an_empty_log_and_one_not_begun_are_maintained_without_a_word(settings: Settings) -> None:
    open_log(settings)
    assert maintain_all(settings).keys() == {TABLE}


def test_row_groups_of_the_merged_file_still_tell_which_offsets_they_hold(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By them a build skips what it has taken in; files in another order would spread the offsets over all groups."""
    monkeypatch.setattr(maintenance, "WRITER", WriterProperties(max_row_group_size=100))
    log = open_log(settings)
    # Of many sizes, for an order by size would be another one.
    for size in (70, 5, 90, 40, 1, 100, 3, 60, 20, 11):
        begin = log.next_offsets[0]
        log.append(changes(0, range(begin, begin + size)), {0: begin + size})
    maintain(settings, TABLE)
    (file,) = parquet_files(settings, TABLE)
    with duckdb.connect() as connection:
        groups = connection.execute(
            "select stats_min_value::bigint, stats_max_value::bigint, row_group_num_rows "
            "from parquet_metadata($file) where path_in_schema = '_offset'",
            {"file": file},
        ).fetchall()
    assert sum(rows for _, _, rows in groups) == 400
    assert len(groups) == 4
    # Each file comes whole and in its own order: at most one file's offsets overlap from a group to the next.
    assert all(last - first < 200 for first, last, _ in groups)


def test_files_replaced_a_moment_ago_stay_for_those_who_listed_them_and_go_after_the_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_one_by_one(settings, 5)
    listed = parquet_files(settings, TABLE)
    # Their own age says nothing: they were replaced just now.
    age(folder(settings).glob("*.parquet"), DAYS_OLD)
    for _ in range(2):
        assert maintain(settings, TABLE).files_deleted == 0
        assert places(listed) == [(0, offset) for offset in range(5)]

    monkeypatch.setattr(maintenance, "SHORTEST_KEPT", timedelta(0))
    size = sum(Path(file).stat().st_size for file in listed)
    report = maintain(settings, TABLE, kept=timedelta(0))
    assert (report.files_deleted, report.bytes_deleted) == (5, size)
    assert files_on_disk(settings) == {Path(file).name for file in parquet_files(settings, TABLE)}
    assert places(parquet_files(settings, TABLE)) == [(0, offset) for offset in range(5)]


def test_what_a_killed_drain_left_without_a_commit_goes_and_what_is_being_written_stays(settings: Settings) -> None:
    append_one_by_one(settings, 1)
    for name in ("left", "written"):
        (folder(settings) / f"part-{name}.parquet").write_bytes(b"of no version")
    age(folder(settings).glob("part-left.parquet"), DAYS_OLD)
    assert maintain(settings, TABLE).files_deleted == 1
    assert "part-written.parquet" in files_on_disk(settings)
    assert "part-left.parquet" not in files_on_disk(settings)


@pytest.mark.parametrize(
    ("read_before", "hours"),
    [(timedelta(hours=1), 24), (timedelta(hours=30, minutes=1), 31), (timedelta(days=5), 121)],
)
def test_files_stay_as_long_as_the_published_marts_show_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, read_before: timedelta, hours: int
) -> None:
    append_one_by_one(settings, 1)
    asked: list[int] = []

    def vacuum(_: DeltaTable, retention: int, **__: object) -> list[str]:
        asked.append(retention)
        return []

    monkeypatch.setattr(DeltaTable, "vacuum", vacuum)
    maintain(settings, TABLE, read_since=datetime.now(UTC) - read_before)
    assert set(asked) == {hours}


def test_nothing_is_deleted_when_they_show_files_that_the_log_may_have_forgotten(settings: Settings) -> None:
    append_one_by_one(settings, 1)
    (folder(settings) / "part-left.parquet").write_bytes(b"of no version")
    age(folder(settings).glob("part-left.parquet"), timedelta(days=30))
    long_ago = datetime.now(UTC) - LONGEST_KEPT - timedelta(hours=1)
    assert maintain(settings, TABLE, read_since=long_ago).files_deleted == 0
    assert maintain(settings, TABLE).files_deleted == 1


def test_a_retention_shorter_than_a_build_is_refused(settings: Settings) -> None:
    append_one_by_one(settings, 2)
    with pytest.raises(RetentionTooShort, match="2:00:00"):
        maintain(settings, TABLE, kept=SHORTEST_KEPT - timedelta(seconds=1))
    assert len(parquet_files(settings, TABLE)) == 2
    assert KEPT > SHORTEST_KEPT


def test_old_entries_of_the_log_go_and_offsets_outlive_them(settings: Settings) -> None:
    append_one_by_one(settings, 60)
    maintain(settings, TABLE)
    age((folder(settings) / "_delta_log").iterdir(), DAYS_OLD)
    append_one_by_one(settings, 1)
    maintain(settings, TABLE)
    assert len(log_entries(settings)) < 10
    assert next_offsets(settings, TABLE)[0] == row_count(settings, TABLE) == 61


def test_a_log_that_cannot_be_read_is_named_and_the_others_are_maintained(settings: Settings) -> None:
    append_one_by_one(settings, 3)
    ChangeLog.open(settings, "refunds", row=ROW, topic_id="b")
    for entry in (settings.lake / "refunds" / "_delta_log").glob("*.json"):
        entry.write_text("not a commit")
    with pytest.raises(TablesNotMaintained, match=r"raw/refunds was not maintained: .*nothing is lost") as failed:
        maintain_all(settings, tables=["refunds", TABLE])
    assert failed.value.maintained[TABLE].files_after == 1


def test_a_compaction_that_is_refused_each_time_is_left_for_the_next_night(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_one_by_one(settings, 3)
    tried: list[str] = []

    class Refused:
        def compact(self, **_: object) -> None:
            tried.append("compact")
            raise CommitFailedError("another was faster")

    with monkeypatch.context() as patched:
        patched.setattr(DeltaTable, "optimize", Refused())
        patched.setattr(maintenance, "wait_exponential_jitter", lambda **_: lambda _: 0)
        report = maintain(settings, TABLE)
    assert (report.is_compacted, report.files_after, len(tried)) == (False, 3, 3)
    assert maintain(settings, TABLE).files_after == 1


def test_on_a_full_disk_what_nobody_reads_goes_and_nothing_is_written(settings: Settings) -> None:
    append_one_by_one(settings, 5)
    of_the_log = files_on_disk(settings)
    left = folder(settings) / "left-by-a-killed-drain.parquet"
    left.write_bytes(b"x")
    age(iter([left]), DAYS_OLD)
    full = settings.model_copy(update={"least_free_bytes": ByteSize(shutil.disk_usage(settings.home).total)})
    with pytest.raises(TablesNotMaintained, match=r"raw/charges was not maintained: NotEnoughDisk: only"):
        maintain_all(full)
    assert files_on_disk(settings) == of_the_log
    assert len(parquet_files(settings, TABLE)) == 5


def test_whoever_replaces_files_meanwhile_is_waited_for_and_named_in_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_one_by_one(settings, 3)
    monkeypatch.setattr(maintenance, "only_rewriter", partial(only_rewriter, wait=timedelta(0)))
    with ThreadPoolExecutor() as pool, only_rewriter(folder(settings)):
        upkeep = pool.submit(maintain_all, settings)
        with pytest.raises(TablesNotMaintained, match=r"raw/charges was not maintained: LogIsRewritten"):
            upkeep.result(LIMIT_SECONDS)
    assert len(parquet_files(settings, TABLE)) == 3


def test_two_upkeeps_at_once_double_nothing(settings: Settings) -> None:
    append_one_by_one(settings, 40)
    both = threading.Barrier(2)

    def maintain_with_the_other() -> None:
        both.wait(LIMIT_SECONDS)
        maintain(settings, TABLE)

    with ThreadPoolExecutor() as pool:
        for running in [pool.submit(maintain_with_the_other) for _ in range(2)]:
            running.result(LIMIT_SECONDS)
    assert places(parquet_files(settings, TABLE)) == [(0, offset) for offset in range(40)]
    assert row_count(settings, TABLE) == 40


def test_beside_a_drain_and_readers_nothing_is_lost_doubled_or_unreadable(settings: Settings) -> None:
    """The drain gives way when it must and goes on; a reader whose files are deleted at once lists them again."""
    open_log(settings)
    stop = threading.Event()

    def work(pool: ThreadPoolExecutor) -> tuple[int, list[int], int]:
        drain = pool.submit(append_until, settings, stop)
        readers = [pool.submit(read_until, settings, stop) for _ in range(2)]
        nights = 0
        deadline = time.monotonic() + LIMIT_SECONDS
        while (nights < 12 or row_count(settings, TABLE) < 400) and time.monotonic() < deadline:
            maintain(settings, TABLE)
            delete_what_was_replaced(settings)
            nights += 1
        stop.set()
        return drain.result(LIMIT_SECONDS), [reader.result(LIMIT_SECONDS) for reader in readers], nights

    with ThreadPoolExecutor() as pool:
        try:
            end, reads, nights = work(pool)
        finally:
            stop.set()
    maintain(settings, TABLE)
    assert nights >= 12
    assert min(reads) >= 5
    assert end >= 200
    assert places(parquet_files(settings, TABLE)) == [(p, offset) for p in (0, 1) for offset in range(end)]
    assert next_offsets(settings, TABLE) == {0: end, 1: end, 2: 0, 3: 0}
    assert (offsets_stored_twice(settings, TABLE), rows_beyond_offsets(settings, TABLE)) == (0, 0)


def append_until(settings: Settings, stop: threading.Event) -> int:
    """Append to two partitions as a drain does: after a lost race from the stored offsets on; return their end."""
    log = open_log(settings)
    while not stop.is_set():
        begin = log.next_offsets[0]
        batch = pa.concat_tables([changes(place, range(begin, begin + 3)) for place in (0, 1)])
        try:
            log.append(batch, {0: begin + 3, 1: begin + 3})
        except LostRace:
            log = open_log(settings)
    return log.next_offsets[0]


def read_until(settings: Settings, stop: threading.Event) -> int:
    """Read version after version, each whole: every offset once, without a gap, and never fewer than before."""
    reads = most = 0
    while not stop.is_set():
        try:
            found = places(parquet_files(settings, TABLE))
        except duckdb.IOException:
            continue
        half = len(found) // 2
        assert found == [(place, offset) for place in (0, 1) for offset in range(half)]
        assert len(found) >= most
        most, reads = len(found), reads + 1
    return reads


# What can happen to a log, in any order: the number says how many records, or to which partition.
Step = tuple[str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "markers", "stale", "maintain", "compact", "vacuum", "checkpoint", "forget"]),
        st.integers(0, 3),
    ),
    max_size=15,
)


@hypothesis_settings(max_examples=25, deadline=None)
@given(steps=steps)
def test_offsets_and_rows_outlive_any_upkeep_at_any_point(
    steps: list[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(stripe_platform_home=tmp_path_factory.mktemp("lake"))
    stale = open_log(settings)
    expected, stored = dict.fromkeys(range(4), 0), []
    for step, number in [*steps, ("forget", 0)]:
        begin = expected[number]
        if step in ("append", "markers"):
            rows = changes(number, range(begin, begin + 2 if step == "append" else begin))
            open_log(settings).append(rows, {number: begin + 3})
            expected[number] = begin + 3
            stored += [(number, begin), (number, begin + 1)] if step == "append" else []
        elif step == "stale":
            refuse_what_is_read_already(stale, number, begin)
        else:
            UPKEEP[step](settings)
        assert next_offsets(settings, TABLE) == expected
        assert places(parquet_files(settings, TABLE)) == sorted(stored)


def refuse_what_is_read_already(stale: ChangeLog, partition: int, end: int) -> None:
    if end:
        # Once the entries that it began with are gone, it can no longer say that it lost.
        with pytest.raises((LostRace, DeltaError)):
            stale.append(changes(partition, range(1)), {partition: 1})


def forget_old_entries(settings: Settings) -> None:
    """Nothing of the log's past is left but its last checkpoint."""
    maintain(settings, TABLE)
    age((folder(settings) / "_delta_log").iterdir(), DAYS_OLD)
    DeltaTable(folder(settings)).cleanup_metadata()
    assert len([name for name in log_entries(settings) if name.endswith(".json")]) <= 1


UPKEEP: dict[str, Callable[[Settings], object]] = {
    "maintain": lambda settings: maintain(settings, TABLE),
    "compact": lambda settings: DeltaTable(folder(settings)).optimize.compact(),
    "vacuum": delete_what_was_replaced,
    "checkpoint": lambda settings: DeltaTable(folder(settings)).create_checkpoint(),
    "forget": forget_old_entries,
}


# In Dagster


def test_the_asset_tells_files_and_bytes_of_each_table_and_in_all(settings: Settings) -> None:
    append_one_by_one(settings, 7)
    result = dg.materialize([maintenance_asset], resources={"settings": settings})
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert event.asset_key == dg.AssetKey(["raw", "maintenance"])
    assert (metadata["files_before"].value, metadata["files_after"].value) == (7, 1)
    assert metadata["left_for_the_next_night"].value == []
    table = metadata["tables"].value
    (record,) = table.records  # type: ignore[union-attr]
    assert {column.name for column in table.schema.columns} == record.data.keys()  # type: ignore[union-attr]
    assert record.data["table"] == TABLE


def test_the_asset_keeps_what_the_published_marts_show(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    append_one_by_one(settings, 1)
    made_at = datetime(2026, 11, 1, tzinfo=UTC)
    asked: list[datetime | None] = []
    monkeypatch.setattr(
        "stripe_platform.raw.maintenance_assets.published_cut", lambda _: Cut("a", made_at, {TABLE: {0: 1}}, {})
    )

    def maintain_all(_: Settings, read_since: datetime | None) -> dict[str, TableMaintained]:
        asked.append(read_since)
        return {}

    monkeypatch.setattr("stripe_platform.raw.maintenance_assets.maintain_all", maintain_all)
    dg.materialize([maintenance_asset], resources={"settings": settings})
    assert asked == [made_at]
