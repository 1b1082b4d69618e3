"""Dead letters once more: decoded and projected again, at the place where they were read."""

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import partial

from pymongo.client_session import ClientSession

from stripe_platform.cdc.topics import topic_for
from stripe_platform.features import dead_letters
from stripe_platform.features.changes import Change
from stripe_platform.features.dead_letters import Listed, UnknownLetter, event_of
from stripe_platform.features.decoder import Columns, TableDecoder
from stripe_platform.features.intake import MOST_BYTES
from stripe_platform.features.offsets import LostRace, Stored, begin
from stripe_platform.features.positions import Late
from stripe_platform.features.projection import Documents, Projected, Store, Unprojectable
from stripe_platform.features.transaction import named_failures
from stripe_platform.features.writer import Writer
from stripe_platform.features.writing import MARKER_LIFE
from stripe_platform.raw.definition import table_columns
from stripe_platform.settings import Settings

MOST_LETTERS = 500
# Of a row whose letter has waited for so long, a delete that came later may have left no marker; with a day to spare
# for clocks that differ, and for expiry while a replay runs.
LATE_AFTER = MARKER_LIFE - timedelta(days=1)

BEFORE_GAP = "changes after it were lost, and all rows of its table were read again since: it says nothing; triage it"
OTHER_TOPIC = "its topic is not the one that the documents follow: its place says nothing; triage it"


@dataclass
class Replayed:
    """What became of letters: changes applied, changes stale by the guard, and {id: reason} of those still refused.

    `gone` are no letters any more: another replay was faster, or this one was done although its answer was lost.
    """

    applied: int = 0
    stale: int = 0
    gone: int = 0
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class _Round:
    """Letters of one transaction: those that became changes, the reasons of the others by id, and how many are gone."""

    changes: list[tuple[Listed, Change]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    gone: int = 0

    def refuse(self, refused: Change, reason: str) -> None:
        (letter,) = (letter for letter, change in self.changes if change is refused)
        self.changes.remove((letter, refused))
        self.refused[letter.id] = reason


def replay(settings: Settings, store: Store, ids: Iterable[str] | None = None) -> Replayed:
    """Decode and project letters again, all or those of these ids, and remove those that succeed.

    Each keeps its place in its topic: the guard decides whether it still counts, so that a newer change of its row
    stands. One that has waited longer than delete markers are kept is refused when nothing is stored of its row.
    Letter and documents are changed in one transaction; a drain beside it begins again from its offsets.
    One that is refused again stays, with the new reason. `UnknownLetter` for an id that there is not, `ColumnsDiffer`
    or `ColumnsMissing` when the table is one whose drain stops too, `Held` while collections are built anew.
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
    replayed.gone += again.gone


def _decoded(
    settings: Settings, store: Store, letters: list[Listed], stored: Stored, columns: dict[str, Columns]
) -> _Round:
    again = _Round()
    for table in sorted({letter.table for letter in letters}):
        taken = stored.tables.get(table)
        mine = [letter for letter in letters if letter.table == table]
        same = [letter for letter in mine if taken is not None and letter.topic_id == taken.topic_id]
        again.refused |= {letter.id: OTHER_TOPIC for letter in mine if letter not in same}
        followed = [letter for letter in same if not _is_before_gap(letter, stored)]
        again.refused |= {letter.id: BEFORE_GAP for letter in same if letter not in followed}
        if taken is None or not followed:
            continue
        decoder = TableDecoder(
            table,
            columns[table],
            kinds=taken.columns,
            placeholder=settings.secret("toast_placeholder"),
            ask=partial(columns.__getitem__, table),
        )
        _decode(store.documents, decoder, followed, stored, again)
    return again


def _decode(documents: Documents, decoder: TableDecoder, letters: list[Listed], stored: Stored, again: _Round) -> None:
    """Add what letters of one table are to the round."""
    places = {(letter.partition, letter.offset): letter for letter in letters}
    events = []
    for letter in letters:
        try:
            events.append(event_of(documents, letter, topic_for(decoder.table)))
        except UnknownLetter:
            again.gone += 1
    decoded = decoder.decode(events)
    for change in decoded.changes:
        letter = places[change.partition, change.offset]
        again.changes.append((letter, _late(change) if _is_late(letter, stored) else change))
    again.refused |= {places[other.partition, other.offset].id: other.reason for other in decoded.refused}


def _is_before_gap(letter: Listed, stored: Stored) -> bool:
    last = stored.rebuilt.get(letter.table)
    return last is not None and letter.offset < last.counted_from.get(letter.partition, 0)


def _is_late(letter: Listed, stored: Stored) -> bool:
    last = stored.rebuilt.get(letter.table)
    known_since = letter.seen_at if last is None else max(letter.seen_at, last.at)
    return known_since < datetime.now(UTC) - LATE_AFTER


def _late(change: Change) -> Late:
    return Late(*(getattr(change, each.name) for each in fields(change)))


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
    if replayed.gone:
        lines.append(f"{replayed.gone:,} replayed already, by another or by a commit whose answer was lost")
    lines += [f"{id}: still refused: {reason}" for id, reason in replayed.refused.items()]
    return "\n".join(lines)
