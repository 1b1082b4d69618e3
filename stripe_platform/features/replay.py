"""Dead letters once more: decoded and projected again, at the place where they were read."""

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from pymongo.client_session import ClientSession

from stripe_platform.cdc.topics import topic_for
from stripe_platform.features import dead_letters
from stripe_platform.features.changes import Change
from stripe_platform.features.dead_letters import Listed, event_of
from stripe_platform.features.decoder import Columns, TableDecoder
from stripe_platform.features.intake import MOST_BYTES
from stripe_platform.features.offsets import LostRace, Stored, begin
from stripe_platform.features.projection import Projected, Store, Unprojectable
from stripe_platform.features.transaction import named_failures
from stripe_platform.features.writer import Writer
from stripe_platform.raw.definition import table_columns
from stripe_platform.settings import Settings

MOST_LETTERS = 500

OTHER_TOPIC = "its topic is not the one that the documents follow: its place says nothing; triage it"


@dataclass
class Replayed:
    """What became of letters: changes applied, changes stale by the guard, and {id: reason} of those still refused."""

    applied: int = 0
    stale: int = 0
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class _Round:
    """Letters of one transaction: those that became changes, with them, and the reasons of the others by id."""

    changes: list[tuple[Listed, Change]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, refused: Change, reason: str) -> None:
        (letter,) = (letter for letter, change in self.changes if change is refused)
        self.changes.remove((letter, refused))
        self.refused[letter.id] = reason


def replay(settings: Settings, store: Store, ids: Iterable[str] | None = None) -> Replayed:
    """Decode and project letters again, all or those of these ids, and remove those that succeed.

    Each keeps its place in its topic: the guard decides whether it still counts, so that a newer change of its row
    stands. Letter and documents are changed in one transaction; a drain beside it begins again from its offsets.
    One that is refused again stays, with the new reason. `UnknownLetter` for an id that there is not, `ColumnsDiffer`
    when the table is one whose drain stops too, `Held` while collections are built anew.
    """
    replayed = Replayed()
    columns = table_columns(settings)
    with named_failures(settings):
        letters = list(dead_letters.listed(store.documents, ids))
    for some in _rounds(letters):
        _replay_some(settings, store, some, columns, replayed)
    return replayed


def _rounds(letters: list[Listed]) -> Iterator[list[Listed]]:
    some: list[Listed] = []
    for letter in letters:
        if some and (len(some) == MOST_LETTERS or sum(other.size for other in some) + letter.size > MOST_BYTES):
            yield some
            some = []
        some.append(letter)
    if some:
        yield some


def _replay_some(
    settings: Settings, store: Store, letters: list[Listed], columns: dict[str, Columns], replayed: Replayed
) -> None:
    while True:
        with named_failures(settings):
            stored = begin(store.documents)
            again = _decoded(settings, store, letters, stored, columns)
        try:
            done = _written(settings, store, stored.version, again)
            break
        except LostRace:
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311
    if done is not None:
        replayed.applied += done.applied
        replayed.stale += done.stale
    replayed.refused |= again.refused


def _decoded(
    settings: Settings, store: Store, letters: list[Listed], stored: Stored, columns: dict[str, Columns]
) -> _Round:
    again = _Round()
    for table in sorted({letter.table for letter in letters}):
        taken = stored.tables.get(table)
        mine = [letter for letter in letters if letter.table == table]
        followed = {
            (letter.partition, letter.offset): letter
            for letter in mine
            if taken is not None and letter.topic_id == taken.topic_id
        }
        again.refused |= {letter.id: OTHER_TOPIC for letter in mine if letter not in followed.values()}
        if taken is None or not followed:
            continue
        decoder = TableDecoder(
            table,
            columns[table],
            kinds=taken.columns,
            placeholder=settings.secret("toast_placeholder"),
            ask=partial(columns.__getitem__, table),
        )
        decoded = decoder.decode([event_of(store.documents, letter, topic_for(table)) for letter in followed.values()])
        again.changes += [(followed[change.partition, change.offset], change) for change in decoded.changes]
        again.refused |= {followed[other.partition, other.offset].id: other.reason for other in decoded.refused}
    return again


def _written(settings: Settings, store: Store, version: int, again: _Round) -> Projected | None:
    writer = Writer(settings, store, version)

    def after(session: ClientSession) -> None:
        dead_letters.remove(session, store.documents, [letter for letter, _ in again.changes])
        dead_letters.tell(session, store.documents, again.refused)

    while True:
        try:
            return writer.write([change for _, change in again.changes], {}, before=lambda _: None, after=after)
        except Unprojectable as refused:
            for change, reason in refused.refused:
                again.refuse(change, reason)


def told(replayed: Replayed) -> str:
    """What a replay did, for people."""
    lines = [f"{replayed.applied:,} applied, {replayed.stale:,} older than what the documents hold"]
    lines += [f"{id}: still refused: {reason}" for id, reason in replayed.refused.items()]
    return "\n".join(lines)
