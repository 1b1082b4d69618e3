"""Records that cannot become documents: kept whole, with the reason, until they are replayed or looked after."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import bson
from bson import Binary
from pymongo.client_session import ClientSession
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stripe_platform.cdc.reader import Event
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.projection import Documents

COLLECTION = "dead_letters"
# The records themselves, compressed, in pieces that fit into a document whatever a record's size.
PARTS = "dead_letter_parts"
PART_BYTES = 8 * 1024 * 1024


class UnknownLetter(StripePlatformError):
    """There is no dead letter of this id."""

    def __init__(self, id: str) -> None:
        super().__init__(f"no dead letter has the id {id!r}: see `stripe-platform dead-letters list`")


@dataclass(frozen=True)
class Letter:
    """A record of a topic that was refused, and why.

    `size` is that of its value in bytes, `record` the compressed whole of it.
    """

    table: str
    topic: str
    topic_id: str
    partition: int
    offset: int
    reason: str
    size: int
    record: bytes

    @classmethod
    def of(cls, table: str, topic_id: str, event: Event, reason: str) -> "Letter":
        """The letter of a record as it was read."""
        whole = bson.encode(
            {
                "key": event.key,
                "value": event.value,
                "headers": [[name, value] for name, value in event.headers or ()],
            }
        )
        return cls(
            table,
            event.topic,
            topic_id,
            event.partition,
            event.offset,
            reason,
            len(event.value or b""),
            zlib.compress(whole),
        )

    @property
    def id(self) -> str:
        """The place of the record, which no other record ever has."""
        return f"{self.topic_id}/{self.partition}/{self.offset}"


@dataclass(frozen=True)
class Listed:
    """What is told of a letter: nothing of the record but its size.

    `parts` is how many documents hold the record; `note` is of the person who triaged it, None before.
    """

    id: str
    table: str
    topic_id: str
    partition: int
    offset: int
    reason: str
    size: int
    parts: int
    seen_at: datetime
    note: str | None


def keep(session: ClientSession, documents: Documents, letters: Sequence[Letter]) -> None:
    """Store the letters in the session's transaction; one that is there already stays as it is."""
    if not letters:
        return
    there = documents[COLLECTION].find({"_id": {"$in": [letter.id for letter in letters]}}, {"_id": 1}, session=session)
    known = {found["_id"] for found in there}
    new = [letter for letter in letters if letter.id not in known]
    if not new:
        return
    now = datetime.now(UTC)
    pieces = {letter.id: _pieces(letter) for letter in new}
    documents[PARTS].insert_many([piece for listed in pieces.values() for piece in listed], session=session)
    documents[COLLECTION].insert_many(
        [
            {
                "_id": letter.id,
                "table": letter.table,
                "topic": letter.topic,
                "topic_id": letter.topic_id,
                "partition": letter.partition,
                "offset": letter.offset,
                "reason": letter.reason,
                "size": letter.size,
                "parts": len(pieces[letter.id]),
                "seen_at": now,
            }
            for letter in new
        ],
        session=session,
    )


def _pieces(letter: Letter) -> list[dict[str, Any]]:
    pieces = [letter.record[begin : begin + PART_BYTES] for begin in range(0, len(letter.record), PART_BYTES)]
    ids = _part_ids(letter.id, len(pieces))
    return [{"_id": id, "data": Binary(piece)} for id, piece in zip(ids, pieces, strict=True)]


def listed(documents: Documents, ids: Iterable[str] | None = None) -> Iterator[Listed]:
    """The letters, all or those of these ids, by table and place; `UnknownLetter` for an id that there is not."""
    wanted = None if ids is None else list(ids)
    for id in wanted or ():
        if documents[COLLECTION].find_one({"_id": id}, {"_id": 1}) is None:
            raise UnknownLetter(id)
    found = documents[COLLECTION].find({} if wanted is None else {"_id": {"$in": wanted}})
    for letter in found.sort([("table", 1), ("topic_id", 1), ("partition", 1), ("offset", 1)]):
        yield Listed(
            letter["_id"],
            letter["table"],
            letter["topic_id"],
            letter["partition"],
            letter["offset"],
            letter["reason"],
            letter["size"],
            letter["parts"],
            letter["seen_at"].replace(tzinfo=UTC),
            letter.get("triaged", {}).get("note"),
        )


def print_listed(letters: Iterable[Listed], console: Console) -> None:
    """A table of the letters."""
    table = Table("id", "table", "partition", "offset", "bytes", "seen", "reason", "triaged", box=SIMPLE_HEAD)
    for letter in letters:
        table.add_row(
            # To be copied whole into the next command.
            Text(letter.id, no_wrap=True),
            letter.table,
            str(letter.partition),
            str(letter.offset),
            f"{letter.size:,}",
            f"{letter.seen_at:%Y-%m-%d %H:%M:%S}",
            Text(letter.reason),
            Text(letter.note or ""),
        )
    console.print(table)


def untriaged(documents: Documents) -> int:
    """How many letters nobody has replayed or triaged."""
    return documents[COLLECTION].count_documents({"triaged": {"$exists": False}})


def triage(documents: Documents, id: str, note: str) -> None:
    """Keep the letter, and count it as looked after; `UnknownLetter`."""
    triaged = {"note": note, "at": datetime.now(UTC)}
    if not documents[COLLECTION].update_one({"_id": id}, {"$set": {"triaged": triaged}}).matched_count:
        raise UnknownLetter(id)


def event_of(documents: Documents, letter: Listed, topic: str) -> Event:
    """The record of a letter as it was read; `UnknownLetter` when it was removed meanwhile."""
    ids = _part_ids(letter.id, letter.parts)
    found = {part["_id"]: part["data"] for part in documents[PARTS].find({"_id": {"$in": ids}})}
    if len(found) < len(ids):
        raise UnknownLetter(letter.id)
    data = b"".join(found[id] for id in ids)
    whole: Mapping[str, Any] = bson.decode(zlib.decompress(data))
    headers = [(name, value) for name, value in whole["headers"]]
    return Event(topic, letter.partition, letter.offset, whole["value"], None, whole["key"], headers)


def tell(session: ClientSession, documents: Documents, reasons: Mapping[str, str]) -> None:
    """Replace the reasons of letters, in the session's transaction."""
    for id, reason in reasons.items():
        documents[COLLECTION].update_one({"_id": id}, {"$set": {"reason": reason}}, session=session)


def remove(session: ClientSession, documents: Documents, letters: Sequence[Listed]) -> None:
    """Remove letters, in the session's transaction."""
    parts = [id for letter in letters for id in _part_ids(letter.id, letter.parts)]
    documents[COLLECTION].delete_many({"_id": {"$in": [letter.id for letter in letters]}}, session=session)
    documents[PARTS].delete_many({"_id": {"$in": parts}}, session=session)


def _part_ids(id: str, parts: int) -> list[str]:
    return [f"{id}/{number}" for number in range(parts)]
