"""The raw change log: one append-only Delta table per captured table, its offsets in its own commits."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, Transaction, WriterProperties, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.rewriting import only_rewriter
from stripe_platform.raw.schema import (
    LOG_FIELDS,
    FollowedColumn,
    definition,
    definition_after,
    log_schema,
    merged,
    own_columns,
    readable,
    refuse_changes,
    replaced_columns,
    widened,
)
from stripe_platform.settings import Settings

TOPIC_ID = "stripe_platform.topic_id"
# The table's columns as last followed or accepted: {column: `FollowedColumn`} as JSON. Logs from before columns had
# numbers have {column: type}, or nothing: then the columns are the log's own.
DEFINITION = "stripe_platform.definition"

# What makes a folder of Parquet files a Delta table.
DELTA_LOG = "_delta_log"

# The operation of a change that stands for lost ones.
GAP = "g"
TRUNCATE = "t"

# A table is opened by its last checkpoint and the commits after it: at 25 a commit stays at its first price.
CHECKPOINT_EVERY_COMMITS = 25

WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class TopicRecreated(StripePlatformError):
    """The topic's id is not the one whose changes the log holds: its offsets mean other records."""

    def __init__(self, table: str, folder: Path) -> None:
        super().__init__(
            f"topic {topic_for(table)} was created again since raw/{table} ({folder}) was begun: its offsets begin "
            "anew and say nothing about the stored ones; begin a new log with a new snapshot of the table: "
            f"`stripe-platform recover {table}`"
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


# Whoever lost begins again from what is stored now, after a moment, lest two meet at every attempt.
retry_lost_race = retry(
    retry=retry_if_exception_type(LostRace), wait=wait_random(0.05, 0.3), stop=stop_after_attempt(20), reraise=True
)


class ChangeLog:
    """The log of one table at the version in which it was opened, or that its own last commit made.

    Offsets are read and written against that one version: when another writer has committed to a partition
    in between, the write is refused with `LostRace` and changes nothing. `topic_id` is that of the topic whose changes
    it holds.
    """

    def __init__(self, table: str, delta: DeltaTable) -> None:
        self.table = table
        self._delta = delta
        self.topic_id = delta.metadata().configuration[TOPIC_ID]
        self._read_at = self._offsets()

    @classmethod
    def open(cls, settings: Settings, table: str, *, row: pa.Schema, topic_id: str) -> "ChangeLog":
        """Open the log, or create it, for rows of this schema from the topic of this id.

        `LostRace` when another process makes it at the same time; else as `go_on`.
        """
        log = cls.existing(settings, table)
        if log is None:
            log = cls(table, _created(log_folder(settings, table), table, row, topic_id))
        log.go_on(row, topic_id)
        return log

    def go_on(self, row: pa.Schema, topic_id: str) -> None:
        """Be ready for rows of this schema from the topic of this id: new columns are added.

        `row` is to be looked up after the log was opened: an older one would lack what others have followed since.
        `TopicRecreated` or `SchemaChanged` when the log cannot be continued, `LostRace` when another writer was faster.
        """
        if self.topic_id != topic_id:
            raise TopicRecreated(self.table, self._folder)
        self.follow(row)

    @classmethod
    def existing(cls, settings: Settings, table: str) -> "ChangeLog | None":
        """The log as it is, whatever PostgreSQL and Kafka say today; None before the first drain."""
        delta = _opened(settings, table)
        return None if delta is None else cls(table, delta)

    @property
    def columns(self) -> pa.Schema:
        """The table's columns that the log holds, those included that the table has no more."""
        return own_columns(pa.schema(self._delta.schema()))

    @property
    def followed(self) -> dict[str, FollowedColumn]:
        """The table's definition that was followed or accepted last."""
        recorded = self._delta.metadata().configuration.get(DEFINITION)
        return definition(self.columns) if recorded is None else _from_json(recorded)

    @property
    def has_moved(self) -> bool:
        """Another writer has committed since this log was opened."""
        return bool(DeltaTable(self._delta.table_uri).version() != self._delta.version())

    @property
    def _folder(self) -> Path:
        return Path(unquote(urlsplit(self._delta.table_uri).path))

    def readable(self, row: pa.Schema) -> pa.Schema:
        """The columns as which changes of a table of this definition are read into this log."""
        return readable(self.columns, row)

    def replaced(self, row: pa.Schema) -> tuple[str, ...]:
        """The columns of `row` under whose names this log holds values of other columns."""
        return replaced_columns(self.columns, self.followed, row)

    def refuse(self, row: pa.Schema) -> None:
        """`SchemaChanged` unless `row` differs from what is followed by new columns at most."""
        refuse_changes(self.table, self.columns, self.followed, row)

    def follow(self, row: pa.Schema) -> None:
        """Take in the columns of `row` that are new; `SchemaChanged` for any other difference."""
        self.refuse(row)
        self.accept(row)

    def refuse_unacceptable(self, row: pa.Schema) -> None:
        """`SchemaNotAcceptable` when `accept` would raise it."""
        merged(self.table, pa.schema(self._delta.schema()), row)

    def accept(self, row: pa.Schema) -> None:
        """Go on with this definition of the table: what the log holds stays, and wider types are made room for.

        Each of its commits may be the last: called again it does the rest. `SchemaNotAcceptable` when a column's
        old and new values fit into no type together, `LostRace` when another writer was faster.
        """
        stored = pa.schema(self._delta.schema())
        wanted, followed = merged(self.table, stored, row), self.followed
        try:
            # Before the columns: a log that had a column and did not follow it would look as if it had been dropped.
            if followed != (now := definition_after(followed, row)):
                self._delta.alter.set_table_properties({DEFINITION: _to_json(now)}, raise_if_not_exists=False)
            if list(wanted)[: len(stored)] != list(stored):
                self._rewrite(wanted)
            elif added := list(wanted)[len(stored) :]:
                fields = DeltaSchema.from_arrow(pa.schema(added)).fields
                self._delta.alter.add_columns([Field(field.name, field.type) for field in fields])
        except (CommitFailedError, SchemaMismatchError) as refused:
            raise LostRace(self.table) from refused

    def _rewrite(self, wanted: pa.Schema) -> None:
        """Replace every file by one of wider types, in one commit; files that came meanwhile stay beside them."""
        with only_rewriter(self._folder):
            if self.has_moved:
                raise LostRace(self.table)
            write_deltalake(
                self._delta,
                widened(self._delta.to_pyarrow_dataset(), wanted),
                mode="overwrite",
                schema_mode="overwrite",
                writer_properties=WRITER,
            )

    @property
    def next_offsets(self) -> dict[int, int]:
        """{partition: offset of the first record that the log has not taken}; 0 before the first."""
        return dict(self._read_at)

    @property
    def whole_from(self) -> dict[int, int]:
        """{partition: offset below which no cut sees all of the rows that were read again}; empty when none were."""
        found = {place: self._delta.transaction_version(self._mark(place)) for place in self._read_at}
        return {place: offset for place, offset in found.items() if offset is not None}

    def has_made_up_for(self, hole: str) -> bool:
        """Whether all that was known before this hole (`stripe_platform/cdc/holes.py`) is forgotten or read again."""
        return self._delta.transaction_version(self._hole(hole)) is not None

    def operations_at(self, offsets: Mapping[int, int]) -> dict[int, str]:
        """{partition: operation of the change that is stored at its offset}, where there is one."""
        places = [
            (pc.field("_partition") == partition) & (pc.field("_offset") == offset)
            for partition, offset in offsets.items()
        ]
        if not places:
            return {}
        dataset = self._delta.to_pyarrow_dataset()
        found = dataset.to_table(["_partition", "_op"], filter=reduce(or_, places)).to_pylist()
        return {change["_partition"]: change["_op"] for change in found}

    def changes(self, partition: int, begin: int, end: int) -> pa.Table:
        """What is stored of a partition from offset `begin` up to `end`, in the order of the offsets."""
        places = (pc.field("_partition") == partition) & (pc.field("_offset") >= begin) & (pc.field("_offset") < end)
        return self._delta.to_pyarrow_dataset().to_table(filter=places).sort_by("_offset")

    def marks(self) -> pa.Table:
        """Gaps and truncates, which are of no row: `_op`, `_partition`, `_offset`, `_lsn`, `_committed_at`."""
        columns = ["_op", "_partition", "_offset", "_lsn", "_committed_at"]
        return self._delta.to_pyarrow_dataset().to_table(columns, filter=pc.field("_op").isin([GAP, TRUNCATE]))

    def record_made_up_for(self, hole: str, whole_from: Mapping[int, int]) -> None:
        """What is known from the last gap marks up to `whole_from` makes up for the hole. `LostRace` as `append`."""
        self.append(self._no_changes(), {}, whole_from, hole)

    def record_gaps(self, begins: Mapping[int, int], whole_from: Mapping[int, int]) -> None:
        """Go on at `begins`, in one commit: what the log knows of these partitions below counts no more.

        Before each begin a change of operation `GAP` is written, which has neither key nor LSN. Of what was lost,
        the rows that live are read again below `whole_from`. `LostRace` as `append`.
        """
        marks = [
            {"_op": GAP, "_partition": partition, "_offset": begin - 1, "_snapshot": False, "_unchanged": []}
            for partition, begin in begins.items()
        ]
        changes = pa.Table.from_pylist(marks, schema=self._no_changes().schema)
        self.append(changes, {**self._read_at, **begins}, whole_from)

    def refuse_cuts_below(self, whole_from: Mapping[int, int]) -> None:
        """Have `whole_from` say so of these partitions. `LostRace` as `append`."""
        self.append(self._no_changes(), {}, whole_from)

    def _no_changes(self) -> pa.Table:
        return pa.schema([*self.columns, *CHANGE_FIELDS, LOG_FIELDS[1]]).empty_table()

    def append(
        self,
        changes: pa.Table,
        next_offsets: Mapping[int, int],
        whole_from: Mapping[int, int] | None = None,
        made_up_for: str | None = None,
    ) -> None:
        """Write versioned changes and the offsets after them in one commit; without changes only the offsets.

        `LostRace`, and nothing is written, when the stored offsets are no longer those that were read.
        """
        if self._offsets() != self._read_at:
            raise LostRace(self.table)
        # Written again where a mark stands on them: another writer must not have moved them.
        kept = {place: self._read_at[place] for place in whole_from or {}}
        moved = {place: offset for place, offset in next_offsets.items() if offset != self._read_at[place]}
        commit = CommitProperties(
            app_transactions=[
                *(Transaction(self._application(place), offset) for place, offset in (kept | moved).items()),
                *(Transaction(self._mark(place), offset) for place, offset in (whole_from or {}).items()),
                *([Transaction(self._hole(made_up_for), 1)] if made_up_for else []),
            ]
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
                # Unlike the other call, this one leaves the version as it was.
                self._delta.update_incremental()
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
        return f"{self.topic_id}/{partition}"

    def _hole(self, hole: str) -> str:
        return f"{self.topic_id}/hole/{hole}"

    def _mark(self, partition: int) -> str:
        return f"{self._application(partition)}/whole_from"


def log_folder(settings: Settings, table: str) -> Path:
    """Where the Delta table of the log lies, or will lie."""
    return settings.lake / TABLES_BY_NAME[table].name


def _to_json(followed: Mapping[str, FollowedColumn]) -> str:
    return json.dumps({name: column._asdict() for name, column in followed.items()})


def _from_json(recorded: str) -> dict[str, FollowedColumn]:
    return {
        name: FollowedColumn(column) if isinstance(column, str) else FollowedColumn(**column)
        for name, column in json.loads(recorded).items()
    }


def _created(folder: Path, table: str, row: pa.Schema, topic_id: str) -> DeltaTable:
    try:
        return DeltaTable.create(
            folder,
            log_schema(row),
            name=table,
            description=f"Every change of {TABLES_BY_NAME[table].qualified}, once, from {topic_for(table)}",
            configuration={
                TOPIC_ID: topic_id,
                DEFINITION: _to_json(definition(row)),
                "delta.checkpointInterval": str(CHECKPOINT_EVERY_COMMITS),
            },
            raise_if_key_not_exists=False,
        )
    except DeltaError as refused:
        # Two first drains at once: whoever came first made it, perhaps for a later definition.
        if DeltaTable.is_deltatable(str(folder)):
            raise LostRace(table) from refused
        raise


def _opened(settings: Settings, table: str) -> DeltaTable | None:
    folder = log_folder(settings, table)
    return DeltaTable(folder) if DeltaTable.is_deltatable(str(folder)) else None


def next_offsets(settings: Settings, table: str) -> dict[int, int]:
    """{partition: offset of the first record that the log has not taken}; 0 before the first."""
    delta = _opened(settings, table)
    if delta is None:
        return dict.fromkeys(range(TABLES_BY_NAME[table].topic_partitions), 0)
    return ChangeLog(table, delta).next_offsets


def set_aside(settings: Settings, table: str) -> Path:
    """Move the log out of the lake whole, to where the next one of the table does not meet it; return its new path.

    Its Parquet files also stay where readers have listed them (the published marts' raw views): the upkeep deletes
    them there as files that were replaced now. Ended before its last act, it has changed nothing and is called again.
    """
    folder = log_folder(settings, table)
    # Kafka's ids are base64: some hold a slash.
    topic_id = ChangeLog(table, DeltaTable(folder)).topic_id.replace("/", "_")
    aside = settings.lake.with_name("set_aside") / f"{table}-{topic_id}"
    aside.mkdir(parents=True, exist_ok=True)
    # A compaction at work would put its files into the next log's folder.
    with only_rewriter(folder):
        for file in folder.glob("*.parquet"):
            # For how long a file stays that no log names is counted from its time.
            file.touch()
            (aside / file.name).unlink(missing_ok=True)
            (aside / file.name).hardlink_to(file)
        (folder / DELTA_LOG).rename(aside / DELTA_LOG)
    return aside


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
