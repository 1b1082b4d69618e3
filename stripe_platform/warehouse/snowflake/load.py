"""The raw change log into Snowflake: Parquet files, PUT and COPY INTO, the offsets in the same transaction.

`raw.<table>` holds every change of a captured table once, up to the cut that was loaded last, and
`meta.raw_offsets` says for each partition of its topic where the next load begins. Both change in one transaction,
whose first statements move the offsets from what was read before to what is being loaded: when another loader has moved
them meanwhile, this one has changed nothing and begins again. Killed anywhere, it leaves at most files in a stage that
ends with its session.
"""

import tempfile
import uuid
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple

import pyarrow.dataset as ds
from snowflake.connector import SnowflakeConnection

from stripe_platform.cdc.cut import Cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import LostRace, retry_lost_race
from stripe_platform.settings import Settings
from stripe_platform.warehouse.change_log_views import RawTable
from stripe_platform.warehouse.snowflake.changes import Range, changes_in, rows_for_loading
from stripe_platform.warehouse.snowflake.columns import (
    Column,
    alter_statements,
    create_statement,
    held_columns,
    snowflake_columns,
)
from stripe_platform.warehouse.snowflake.connection import connected, run, transaction

STAGE = "raw.change_log"
# Large enough for COPY to be busy with reading, small enough for a disk; Snowflake loads the files side by side.
ROWS_PER_FILE = 1_000_000
ROWS_PER_GROUP = 100_000
OFFSETS = (
    "create table if not exists meta.raw_offsets "
    "(table_name text, topic_id text, partition number(38,0), next_offset number(38,0))"
)


class StoredOffset(NamedTuple):
    """Up to which offset Snowflake has a partition of a topic; `rows` is how often `meta.raw_offsets` says so."""

    topic_id: str
    next_offset: int
    rows: int


class LoadedFromAnotherTopic(StripePlatformError):
    """Snowflake holds changes of a topic that was there under the same name before: offsets cannot be compared."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"raw.{table} on Snowflake holds changes of a topic that is no more, for the topic of {table} was created "
            "again; nothing was loaded: load the table anew: docs/snowflake.md, 'A table from the beginning'"
        )


class LoadIncomplete(StripePlatformError):
    """COPY INTO took fewer rows, or more, than there are in the files."""

    def __init__(self, table: str, sent: int, loaded: int) -> None:
        super().__init__(
            f"Snowflake loaded {loaded:,} of {sent:,} changes of {table}, so all were taken back: see COPY_HISTORY of "
            f"raw.{table} for the reason, and run again"
        )


def load_change_log(settings: Settings, tables: Mapping[str, RawTable], cut: Cut) -> dict[str, int]:
    """Take the changes below the cut that Snowflake has not; {table: number of changes loaded now}.

    Harmless to repeat and to run beside itself: each change is loaded once. `tables` are the logs as they are now,
    which reach the cut. `LoadedFromAnotherTopic` and `ColumnNeedsAnotherType` before anything is loaded of that table,
    `LoadIncomplete` and `SnowflakeRefused` with nothing changed by the failed load.
    """
    with connected(settings, settings.snowflake_loader_role) as connection:
        run(connection, "make the table of offsets", OFFSETS)
        run(connection, "make a stage", f"create temporary stage if not exists {STAGE} file_format = (type = parquet)")
        held = held_columns(connection)
        return {
            name: _Load(settings, connection, name, raw).up_to(cut.offsets.get(name, {}), held.get(name, {}))
            for name, raw in tables.items()
        }


def stored_offsets(connection: SnowflakeConnection, table: str) -> dict[int, StoredOffset]:
    """What is stored of each partition of one table."""
    stored = run(
        connection,
        f"read the offsets of {table}",
        "select partition, topic_id, max(next_offset), count(*) from meta.raw_offsets where table_name = %s "
        "group by partition, topic_id",
        [table],
    )
    return {
        int(partition): StoredOffset(str(topic_id), int(offset), int(rows))
        for partition, topic_id, offset, rows in stored
    }


def require_topics(connection: SnowflakeConnection, tables: Mapping[str, RawTable]) -> None:
    """`LoadedFromAnotherTopic` for the first table of which Snowflake holds changes of another topic than its log."""
    run(connection, "make the table of offsets", OFFSETS)
    topics: dict[str, set[str]] = {}
    for table, topic_id in run(
        connection, "read the topics that were loaded", "select distinct table_name, topic_id from meta.raw_offsets"
    ):
        topics.setdefault(table, set()).add(topic_id)
    for table, raw in tables.items():
        _require_topic(table, raw, topics.get(table, set()))


def _require_topic(table: str, raw: RawTable, loaded: Set[str]) -> None:
    if loaded - {raw.topic_id}:
        raise LoadedFromAnotherTopic(table)


class _Load:
    """One table's load."""

    def __init__(self, settings: Settings, connection: SnowflakeConnection, table: str, raw: RawTable) -> None:
        self._settings = settings
        self._connection = connection
        self._table = table
        self._raw = raw

    def up_to(self, ends: Mapping[int, int], held: Mapping[str, Column]) -> int:
        """Load what lies below `ends`, whose columns Snowflake may lack; the number of changes."""
        self._make_room(held)
        return self._take(ends)

    @retry_lost_race
    def _take(self, ends: Mapping[int, int]) -> int:
        stored = self._stored()
        begins = self._begins(stored)
        ranges = {place: (begins[place], end) for place, end in ends.items() if begins[place] < end}
        if not ranges:
            return 0
        with tempfile.TemporaryDirectory(dir=self._settings.warehouse_folder, prefix="load-") as folder:
            files = self._written(Path(folder), ranges)
            # A path of its own: what a try that failed has left in the stage is not loaded.
            staged = f"@{STAGE}/{self._table}/{uuid.uuid4().hex}"
            for file in files:
                run(self._connection, f"stage {self._table}", f"put 'file://{file}' {staged} auto_compress = false")
        with transaction(self._connection):
            self._move_offsets({place: (stored[place], end) for place, (_, end) in ranges.items()})
            # Where offsets stay what they are, another loader cannot be told by them.
            if self._begins(stored) != begins:
                raise LostRace(self._table)
            if files:
                self._copy(staged, sum(files.values()))
        return sum(files.values())

    def _make_room(self, held: Mapping[str, Column]) -> None:
        """The table and its columns; a statement that changes a definition would end a transaction."""
        wanted = snowflake_columns(self._table, self._raw.schema)
        statements = alter_statements(self._table, held, wanted) if held else [create_statement(self._table, wanted)]
        for statement in statements:
            run(self._connection, f"make room for {self._table}", statement)

    def _stored(self) -> dict[int, int]:
        """{partition: stored offset}, once each partition has one row that can be compared and set."""
        stored = self._stored_now()
        if missing := set(range(TABLES_BY_NAME[self._table].topic_partitions)) - set(stored):
            for partition in missing:
                self._store_first(partition)
            stored = self._stored_now()
        # Inserts wait for nobody: two loaders that begin at once may both have stored a first offset. One of them, at
        # least, comes by here after the other's insert.
        if repeated := [partition for partition, offset in stored.items() if offset.rows > 1]:
            for partition in repeated:
                self._take_first_back(partition)
            raise LostRace(self._table)
        return {partition: offset.next_offset for partition, offset in stored.items()}

    def _stored_now(self) -> dict[int, StoredOffset]:
        stored = stored_offsets(self._connection, self._table)
        _require_topic(self._table, self._raw, {offset.topic_id for offset in stored.values()})
        return stored

    def _store_first(self, partition: int) -> None:
        run(
            self._connection,
            f"store a first offset of {self._table}",
            "insert into meta.raw_offsets (table_name, topic_id, partition, next_offset) "
            "select %s, %s, %s, 0 where not exists "
            "(select 1 from meta.raw_offsets where table_name = %s and partition = %s)",
            [self._table, self._raw.topic_id, partition, self._table, partition],
        )

    def _take_first_back(self, partition: int) -> None:
        run(
            self._connection,
            f"take a first offset of {self._table} back",
            "delete from meta.raw_offsets where table_name = %s and partition = %s and next_offset = 0",
            [self._table, partition],
        )

    def _begins(self, stored: Mapping[int, int]) -> dict[int, int]:
        """{partition: offset of the first change to load}: the stored one, or that of a gap mark just below it.

        The log marks a gap in the place that its offsets have passed already (`raw.mending`), and says so by
        `whole_from`.
        """
        may_be_marked = {place: end for place, end in stored.items() if 0 < end <= self._raw.whole_from.get(place, 0)}
        if not may_be_marked:
            return dict(stored)
        places = " or ".join(f"(_partition = {place} and _offset = {end - 1})" for place, end in may_be_marked.items())
        what = f"look for gap marks of {self._table}"
        loaded = {
            int(place)
            for (place,) in run(
                self._connection, what, f"select distinct _partition from raw.{self._table} where {places}"
            )
        }
        return dict(stored) | {place: end - 1 for place, end in may_be_marked.items() if place not in loaded}

    def _written(self, folder: Path, ranges: Mapping[int, Range]) -> dict[Path, int]:
        """Parquet files of the changes in the ranges, each with the number of its changes."""
        rows: dict[Path, int] = {}
        ds.write_dataset(
            rows_for_loading(changes_in(self._raw, ranges)),
            folder,
            format="parquet",
            basename_template="{i}.parquet",
            max_rows_per_file=ROWS_PER_FILE,
            max_rows_per_group=ROWS_PER_GROUP,
            file_visitor=lambda file: rows.update({Path(file.path): file.metadata.num_rows}),
        )
        return {file: count for file, count in rows.items() if count}

    def _move_offsets(self, ranges: Mapping[int, Range]) -> None:
        for partition, (begin, end) in ranges.items():
            ((moved, *_),) = run(
                self._connection,
                f"move the offsets of {self._table}",
                "update meta.raw_offsets set next_offset = %s "
                "where table_name = %s and topic_id = %s and partition = %s and next_offset = %s",
                [end, self._table, self._raw.topic_id, partition, begin],
            )
            if int(moved) != 1:
                raise LostRace(self._table)

    def _copy(self, staged: str, rows: int) -> None:
        results = run(
            self._connection,
            f"copy the changes of {self._table}",
            f"copy into raw.{self._table} from {staged}/ file_format = (type = parquet use_logical_type = true) "
            "match_by_column_name = case_insensitive purge = true",
        )
        # file, status, rows parsed, rows loaded, …
        loaded = sum(int(result[3]) for result in results)
        if loaded != rows:
            raise LoadIncomplete(self._table, rows, loaded)
