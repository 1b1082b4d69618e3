"""Charges in the course of one batch: read, changed, composed anew, and written where they differ."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession

from stripe_platform.features.changes import Change
from stripe_platform.features.charges import CHILDREN, COLLECTION, Charge, charge_id_of
from stripe_platform.features.connection import Documents
from stripe_platform.features.exchange import Rates, day_of
from stripe_platform.features.ids import prefixed
from stripe_platform.features.parents import Parents, row_id
from stripe_platform.features.reading import find_raw
from stripe_platform.features.writing import Write, write_all

# Composed at once, which bounds memory however many charges embed a row.
_CHUNK = 2_000


class TileWriter(Protocol):
    """Keeps features in step with the charges' documents, in the same transaction."""

    def deltas(self, before: RawBSONDocument | None, after: Mapping[str, Any]) -> None:
        """Take note that a document was made (before: None) or replaced."""

    def write(self, session: ClientSession) -> Mapping[str, int]:
        """Write what was noted; called once, after the documents. {collection: tiles that changed}."""


class ChargeBatch:
    """The charges that a batch touches, under the parents as the batch leaves them."""

    def __init__(self, session: ClientSession, documents: Documents, parents: Parents, now: datetime) -> None:
        self._session, self._documents, self._parents, self._now = session, documents, parents, now
        self.rates = Rates(session, documents, parents)
        self._composed: set[str] = set()
        self._writes: list[Write] = []
        self.stale = 0

    def take(self, changes: Sequence[Change]) -> None:
        """Apply the changes of charges and of what belongs to them, in their order."""
        keyed = self._by_charge(changes)
        charges = {id_: Charge(id_, None) for id_, _ in keyed}
        for found in self._find({"_id": {"$in": list(charges)}}) if charges else ():
            charges[found["_id"]] = Charge(found["_id"], found)
        for id_, change in keyed:
            if not charges[id_].take(change):
                self.stale += 1
        self._compose([charge for charge in charges.values() if charge.last is not None])

    def compose_again(self, condition: Mapping[str, Any]) -> None:
        """Compose anew the stored charges that the condition finds and the batch has not touched."""
        chunk: list[Charge] = []
        for found in self._find(condition):
            if found["_id"] in self._composed:
                continue
            chunk.append(Charge(found["_id"], found))
            if len(chunk) == _CHUNK:
                self._compose(chunk)
                chunk = []
        self._compose(chunk)

    def write(self, features: TileWriter | None) -> Counter[str]:
        """Write what differs from what is stored; how much that was in each collection."""
        written = write_all(self._session, self._documents, COLLECTION, self._writes)
        done = Counter({COLLECTION: len(written)})
        if features is not None:
            for write in written:
                features.deltas(write.before, write.document)
            done.update(features.write(self._session))
        return done

    def _find(self, condition: Mapping[str, Any]) -> Iterator[RawBSONDocument]:
        return find_raw(self._session, self._documents, COLLECTION, condition)

    def _by_charge(self, changes: Sequence[Change]) -> list[tuple[str, Change]]:
        """Each change with its charge; without the deletes of children that no charge has."""
        keyed: list[tuple[str | None, Change]] = []
        latest: dict[tuple[str, str], str] = {}
        for change in changes:
            id_ = charge_id_of(change)
            if change.table in CHILDREN:
                child = change.table, change.row["id"]
                if id_ is None:
                    id_ = latest.get(child)
                else:
                    latest[child] = id_
            keyed.append((id_, change))
        owners = self._owners(change for id_, change in keyed if id_ is None)
        found = [(id_ or owners.get((change.table, change.row["id"])), change) for id_, change in keyed]
        known = [(id_, change) for id_, change in found if id_ is not None]
        self.stale += len(found) - len(known)
        return known

    def _owners(self, deletes: Iterable[Change]) -> dict[tuple[str, str], str]:
        """The stored charges that hold the children: a delete names its child alone."""
        children: dict[str, dict[str, str]] = {}
        for change in deletes:
            key = change.row["id"]
            children.setdefault(change.table, {})[prefixed(change.table, key)] = key
        owners: dict[tuple[str, str], str] = {}
        for table, keys in children.items():
            for found in self._find({f"{table}.id": {"$in": list(keys)}}):
                for child in found[table]:
                    if child["id"] in keys:
                        owners[table, keys[child["id"]]] = found["_id"]
        return owners

    def _compose(self, charges: Sequence[Charge]) -> None:
        self._load_parents(charges)
        for charge in charges:
            self._composed.add(charge.id)
            document = charge.compose(self._parents, self.rates, self._now)
            write = Write(charge.before, document, charge.last or self._cause(charge))
            # What was changed by none of its own rows may well be what it was.
            if charge.last is not None or write.update():
                self._writes.append(write)

    def _load_parents(self, charges: Sequence[Charge]) -> None:
        methods = {charge.method_id for charge in charges}
        self._parents.load(id_ for id_ in methods | {charge.intent_id for charge in charges} if id_)
        held = [method for id_ in methods if id_ and (method := self._parents.row(id_))]
        self._parents.load(
            row_id("card_fingerprints", method["card_fingerprint"]) for method in held if method["card_fingerprint"]
        )
        self.rates.load(
            {(row["currency"], day_of(row["created"])) for charge in charges if (row := charge.columns) is not None}
        )

    def _cause(self, charge: Charge) -> Change:
        """The change of a parent for whose sake the charge is composed anew."""
        for id_ in (charge.intent_id, charge.method_id):
            if id_ and (change := self._parents.last_change(id_)):
                return change
        return next(row.last for row in reversed(self._parents.changed) if row.last is not None)
