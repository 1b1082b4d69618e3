"""The raw change log: one append-only Delta table per captured table, its offsets in its own commits."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, Transaction, WriterProperties, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError

from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.schema import LOG_FIELDS, added_columns, log_schema
from stripe_platform.settings import Settings

TOPIC_ID = "stripe_platform.topic_id"

# A table is opened by its last checkpoint and the commits after it: at 25 a commit stays at its first price.
CHECKPOINT_EVERY_COMMITS = 25

WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class TopicRecreated(StripePlatformError):
    """The topic's id is not the one whose changes the log holds: its offsets mean other records."""

    def __init__(self, table: str, folder: Path) -> None:
        super().__init__(
            f"topic {topic_for(table)} was created again since raw/{table} was begun: its offsets begin anew and "
            "say nothing about the stored ones; take a new snapshot of the table into the new topic, and move "
            f"{folder} away, so that the log is built anew from it"
        )


class LostRace(Exception):
    """Another writer moved the log after its offsets were read: what was read ahead counts for nothing.

    Not for users: a drain begins again from the stored offsets.
    """

    def __init__(self, table: str) -> None:
        super().__init__(
            f"another writer moved the offsets of raw/{table} meanwhile; nothing was written: "
            "read the stored offsets again and go on from there"
        )


class ChangeLog:
    """The log of one table at the version in which it was opened, or that its own last commit made.

    Offsets are read and written against that one version: when another writer has committed to a partition
    in between, the write is refused with `LostRace` and changes nothing.
    """

    def __init__(self, table: str, delta: DeltaTable) -> None:
        self.table = table
        self._delta = delta
        self._topic_id = delta.metadata().configuration[TOPIC_ID]
        self._read_at = self._offsets()

    @classmethod
    def open(cls, settings: Settings, table: str, *, row: pa.Schema, topic_id: str) -> "ChangeLog":
        """Open the log, or create it, for rows of this schema from the topic of this id.

        New columns are added. `TopicRecreated` or `SchemaChanged` when the stored log cannot be continued.
        """
        folder = _folder(settings, table)
        if not DeltaTable.is_deltatable(str(folder)):
            _create(folder, table, row, topic_id)
        log = cls(table, DeltaTable(folder))
        if log._topic_id != topic_id:
            raise TopicRecreated(table, folder)
        log.add_columns(row)
        return log

    def add_columns(self, row: pa.Schema) -> None:
        """Take in the columns of `row` that the log has not; `SchemaChanged` for any other difference."""
        added = added_columns(self.table, pa.schema(self._delta.schema()), row)
        if added:
            fields = DeltaSchema.from_arrow(pa.schema(added)).fields
            try:
                self._delta.alter.add_columns([Field(field.name, field.type) for field in fields])
            except CommitFailedError as refused:
                raise LostRace(self.table) from refused

    @property
    def next_offsets(self) -> dict[int, int]:
        """{partition: offset of the first record that the log has not taken}; 0 before the first."""
        return dict(self._read_at)

    def append(self, changes: pa.Table, next_offsets: Mapping[int, int]) -> None:
        """Write versioned changes and the offsets after them in one commit; without changes only the offsets.

        `LostRace`, and nothing is written, when the stored offsets are no longer those that were read.
        """
        if self._offsets() != self._read_at:
            raise LostRace(self.table)
        moved = {place: offset for place, offset in next_offsets.items() if offset != self._read_at[place]}
        commit = CommitProperties(
            app_transactions=[Transaction(self._application(place), offset) for place, offset in moved.items()]
        )
        try:
            if changes.num_rows:
                write_deltalake(
                    self._delta,
                    self._logged(changes),
                    mode="append",
                    writer_properties=WRITER,
                    commit_properties=commit,
                )
            else:
                self._delta.create_write_transaction([], "append", self._delta.schema(), commit_properties=commit)
        except (CommitFailedError, SchemaMismatchError) as refused:
            raise LostRace(self.table) from refused
        self._read_at |= moved

    def _logged(self, changes: pa.Table) -> pa.Table:
        field = LOG_FIELDS[0]
        loaded_at = pa.repeat(pa.scalar(datetime.now(UTC), field.type), changes.num_rows)
        return changes.append_column(field, loaded_at).select(pa.schema(self._delta.schema()).names)

    def _offsets(self) -> dict[int, int]:
        places = range(TABLES_BY_NAME[self.table].topic_partitions)
        return {place: self._delta.transaction_version(self._application(place)) or 0 for place in places}

    def _application(self, partition: int) -> str:
        return f"{self._topic_id}/{partition}"


def _folder(settings: Settings, table: str) -> Path:
    return settings.lake / TABLES_BY_NAME[table].name


def _create(folder: Path, table: str, row: pa.Schema, topic_id: str) -> None:
    try:
        DeltaTable.create(
            folder,
            log_schema(row),
            name=table,
            description=f"Every change of {TABLES_BY_NAME[table].qualified}, once, from {topic_for(table)}",
            configuration={
                TOPIC_ID: topic_id,
                "delta.checkpointInterval": str(CHECKPOINT_EVERY_COMMITS),
            },
            raise_if_key_not_exists=False,
        )
    except DeltaError:
        # Two first drains at once: whoever came first made it.
        if not DeltaTable.is_deltatable(str(folder)):
            raise


def _opened(settings: Settings, table: str) -> DeltaTable | None:
    folder = _folder(settings, table)
    return DeltaTable(folder) if DeltaTable.is_deltatable(str(folder)) else None


def next_offsets(settings: Settings, table: str) -> dict[int, int]:
    """{partition: offset of the first record that the log has not taken}; 0 before the first."""
    delta = _opened(settings, table)
    if delta is None:
        return dict.fromkeys(range(TABLES_BY_NAME[table].topic_partitions), 0)
    return ChangeLog(table, delta).next_offsets


def parquet_files(settings: Settings, table: str) -> list[str]:
    """Absolute paths of the Parquet files of the log's newest version; empty before the first change."""
    delta = _opened(settings, table)
    return [] if delta is None else sorted(delta.file_uris())


def row_count(settings: Settings, table: str) -> int:
    """Number of changes in the log's newest version, from the log alone."""
    delta = _opened(settings, table)
    if delta is None:
        return 0
    counts = pa.table(delta.get_add_actions(flatten=True))["num_records"]
    return pc.sum(counts).as_py() or 0


def columns(settings: Settings, table: str) -> pa.Schema | None:
    """The columns of the log's newest version; None before the first drain."""
    delta = _opened(settings, table)
    return None if delta is None else pa.schema(delta.schema())
