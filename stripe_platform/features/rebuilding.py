"""Filling collections that lie beside: from logs by the projector, or features from the charges' documents."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from pymongo.client_session import ClientSession

from stripe_platform.features import charges, dead_letters, tiles
from stripe_platform.features.changes import Change, Refused
from stripe_platform.features.dead_letters import Letter
from stripe_platform.features.intake import MOST_RECORDS
from stripe_platform.features.offsets import LostRace, advance, begin
from stripe_platform.features.payments import payment_of
from stripe_platform.features.projection import Documents, Store, Unprojectable, without
from stripe_platform.features.raw_source import Source, TableLog
from stripe_platform.features.slices import in_slices
from stripe_platform.features.transaction import in_transaction
from stripe_platform.features.writer import Writer
from stripe_platform.settings import Settings

Step = Callable[[], None]

_OF_PAYMENTS = (
    "created",
    "status",
    "deleted",
    "merchant",
    "customer",
    "card.fingerprint",
    "reporting_amount",
    "fraud_known_at",
)


def project_logs(settings: Settings, documents: Documents, beside: Store, source: Source, step: Step) -> None:
    """Project the logs' changes into the store beside; `step` is called after each transaction.

    What is a dead letter stays one, and what cannot become a document becomes one.
    """
    for log in source.logs.values():
        refused = _Letters(documents, log)
        for changes in _batches(log):
            _project(settings, beside, refused.without(changes), refused)
            step()


def _batches(log: TableLog) -> Iterator[list[Change | Refused]]:
    for some in log.changes():
        yield from in_slices(some, MOST_RECORDS)


class _Letters:
    """The dead letters of one table: those that there are, and those that come."""

    def __init__(self, documents: Documents, log: TableLog) -> None:
        self._documents, self._log = documents, log
        here = {"table": log.table, "topic_id": log.log.topic_id}
        found = documents[dead_letters.COLLECTION].find(here, {"partition": 1, "offset": 1})
        self._known = {(letter["partition"], letter["offset"]) for letter in found}
        self._new: list[Letter] = []

    def without(self, changes: Iterable[Change | Refused]) -> list[Change]:
        """The changes that are no letters."""
        kept = []
        for change in changes:
            if (change.partition, change.offset) in self._known:
                continue
            if isinstance(change, Refused):
                self.add(change, change.reason)
            else:
                kept.append(change)
        return kept

    def add(self, refused: Change | Refused, reason: str) -> None:
        """Have a letter of this change kept with the next batch."""
        event = self._log.event_of(refused.partition, refused.offset)
        self._new.append(Letter.of(self._log.table, self._log.log.topic_id, event, reason))

    def keep(self, session: ClientSession) -> None:
        """Keep what was added, in the session's transaction."""
        dead_letters.keep(session, self._documents, self._new)

    def are_kept(self) -> None:
        """The transaction was committed."""
        self._new = []


def _project(settings: Settings, beside: Store, changes: list[Change], letters: _Letters) -> None:
    while True:
        writer = Writer(settings, beside, begin(beside.documents).version)
        try:
            writer.write(changes, {}, before=letters.keep, after=lambda _: None)
            letters.are_kept()
            return
        except LostRace:
            # A new writer ended the transaction. Had it been committed, all of this is stale by now.
            continue
        except Unprojectable as refused:
            for change, reason in refused.refused:
                letters.add(change, reason)
            changes = without(changes, refused.refused)


def sum_up_charges(
    settings: Settings, documents: Documents, beside: Store, collections: Sequence[str], step: Step
) -> None:
    """Write the features of these collections as the charges' documents say, into the store beside."""
    found = documents[charges.COLLECTION].find({}, dict.fromkeys(_OF_PAYMENTS, 1)).sort("_id", 1)
    for some in in_slices(found, MOST_RECORDS):
        total = tiles.total(tiles.deltas(None, payment_of(charge)) for charge in some)
        _add(settings, beside, {key: tile for key, tile in total.items() if key.entity.collection in collections})
        step()


def _add(settings: Settings, beside: Store, deltas: Mapping[tiles.TileKey, tiles.Tile]) -> None:
    """Add the deltas once, though a new writer may end the transaction: the version says whether they were."""
    documents = beside.documents
    version = begin(documents).version

    def body(session: ClientSession) -> None:
        advance(session, documents, version, {})
        tiles.write(session, documents, deltas)

    while begin(documents).version == version:
        with suppress(LostRace):
            in_transaction(settings, beside.session, body)
