"""How far the document store has come: one document, with which every transaction of its writers begins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo.client_session import ClientSession

from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.hold import COLLECTION, ID, give_way
from stripe_platform.features.projection import Documents
from stripe_platform.oltp.tables import TABLES_BY_NAME

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class TopicRecreated(StripePlatformError):
    """The topic's id is not the one whose changes the documents hold: its offsets mean other records."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"topic {topic_for(table)} was created again since MongoDB's documents of {table} were begun: its offsets "
            f"begin anew and say nothing about the stored ones; build the documents anew: `stripe-platform rebuild "
            f"{table}`"
        )


class LostRace(Exception):
    """Another writer came between: what was read ahead counts for nothing.

    Not for users: a writer begins again from the stored offsets.
    """


@dataclass(frozen=True)
class TableOffsets:
    """What the store has taken of one table's topic: {partition: next offset}; and {column: kind} of its values."""

    topic_id: str
    next: Mapping[int, int]
    columns: Mapping[str, str]


@dataclass(frozen=True)
class LastRebuild:
    """When documents were last built anew, with a marker of every delete, from {partition: offset} on."""

    at: datetime
    counted_from: Mapping[int, int]


@dataclass(frozen=True)
class Stored:
    """The store's own offsets; `version` is what a writer who read them must find when it writes.

    `holes` is {table: id of the last hole (`stripe_platform/cdc/holes.py`) that its documents have made up for}.
    """

    version: int
    tables: Mapping[str, TableOffsets]
    holes: Mapping[str, str]
    rebuilt: Mapping[str, LastRebuild] = field(default_factory=dict)

    def next_offsets(self, tables: Iterable[str]) -> dict[str, dict[int, int]]:
        """{table: {partition: next offset}}, 0 where nothing was taken yet."""
        found = {}
        for table in tables:
            begin = dict.fromkeys(range(TABLES_BY_NAME[table].topic_partitions), 0)
            found[table] = begin | dict(self.tables[table].next) if table in self.tables else begin
        return found


def stored_offsets(documents: Documents) -> Stored:
    """The offsets as they are now; nothing taken, when no writer was ever here."""
    document = documents[COLLECTION].find_one({"_id": ID})
    if document is None:
        return Stored(0, {}, {})
    tables = {
        table: TableOffsets(taken["topic_id"], _by_partition(taken["next"]), taken["columns"])
        for table, taken in document["offsets"].items()
    }
    rebuilt = {
        table: LastRebuild(
            # Not every client reads times with a zone.
            last["at"].replace(tzinfo=UTC),
            _by_partition(last["counted_from"]),
        )
        for table, last in document.get("rebuilt", {}).items()
    }
    return Stored(document["version"], tables, document.get("holes", {}), rebuilt)


def _by_partition(stored: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in stored.items()}


def begin(documents: Documents) -> Stored:
    """As `stored_offsets`, for a writer: the document exists afterwards; `Held` while collections are built anew."""
    first = {"version": 0, "offsets": {}, "begun_at": datetime.now(UTC)}
    documents[COLLECTION].update_one({"_id": ID}, {"$setOnInsert": first}, upsert=True)
    give_way(documents)
    return stored_offsets(documents)


def begun_at(session: ClientSession, documents: Documents) -> datetime | None:
    """When the first writer came to the store, long ago where that was not noted; None when none has."""
    found = documents[COLLECTION].find_one({"_id": ID}, {"begun_at": 1}, session=session)
    if found is None:
        return None
    begun: datetime = found.get("begun_at", _LONG_AGO)
    return begun


def advance(session: ClientSession, documents: Documents, version: int, moved: Mapping[str, TableOffsets]) -> None:
    """Move the offsets of these tables, in the session's transaction, before anything else is done in it.

    `LostRace` unless the version is the given one and nobody holds the store; afterwards it is one more. As every
    writer changes this one document, of two transactions only one can be committed.
    """
    changes: dict[str, Any] = {"$inc": {"version": 1}}
    if moved:
        changes["$set"] = paths(moved)
    # A hold changes the version: who read it after that must not write either.
    wanted = {"_id": ID, "version": version, "hold": {"$exists": False}}
    found = documents[COLLECTION].update_one(wanted, changes, session=session)
    if not found.matched_count:
        raise LostRace


def paths(moved: Mapping[str, TableOffsets]) -> dict[str, Any]:
    """The offsets of tables as they are set in the document: {path: value}."""
    return {
        f"offsets.{table}": {
            "topic_id": taken.topic_id,
            "next": {str(partition): offset for partition, offset in taken.next.items()},
            "columns": dict(taken.columns),
        }
        for table, taken in moved.items()
    }
