"""Charges in the course of one batch: read, changed, composed anew, and written where they differ."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession

from stripe_platform.features.changes import Change
from stripe_platform.features.charges import CHILDREN, COLLECTION, Charge, charge_id_of
from stripe_platform.features.child_markers import ChildMarkers
from stripe_platform.features.connection import Documents
from stripe_platform.features.exchange import Rates, day_of
from stripe_platform.features.ids import prefixed
from stripe_platform.features.parents import Parents, row_id
from stripe_platform.features.projection import take_all
from stripe_platform.features.reading import find_raw
from stripe_platform.features.slices import in_slices
from stripe_platform.features.writing import Write, write_ahead

# Composed at once, which bounds memory however many charges embed a row.
_CHUNK = 2_000
# Composed while as many are written.
_WRITTEN_AT_ONCE = 500


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
        self.markers = ChildMarkers(session, documents)
        # With the last change of each.
        self._own: dict[str, tuple[Charge, Change]] = {}
        self._again: dict[str, Write] = {}
        self.stale = 0

    def take(self, changes: Sequence[Change]) -> None:
        """Apply the changes of charges and of what belongs to them, in their order."""
        keyed = self._by_charge(changes)
        charges = {id_: Charge(id_, None) for id_, _ in keyed if id_ is not None}
        for found in self._find({"_id": {"$in": list(charges)}}) if charges else ():
            charges[found["_id"]] = Charge(found["_id"], found)
        self.markers.load(keyed, charges)
        takes = ((partial(self._take, None if id_ is None else charges[id_]), change) for id_, change in keyed)
        self.stale += take_all(takes)
        self._own = {charge.id: (charge, charge.last) for charge in charges.values() if charge.last is not None}

    def _take(self, charge: Charge | None, change: Change) -> bool:
        if charge is not None and change.table not in CHILDREN:
            return charge.take(change)
        return self.markers.take(change, charge)

    def compose_again(self, condition: Mapping[str, Any]) -> None:
        """Compose anew the stored charges that the condition finds and the batch has not touched."""
        found = (document for document in self._find(condition) if not self._has(document["_id"]))
        for chunk in in_slices(found, _CHUNK):
            charges = [Charge(document["_id"], document) for document in chunk]
            self._load_parents(charges)
            for charge in charges:
                write = self._composed(charge, self._cause(charge))
                # What was changed by none of its own rows may well be what it was.
                if write.update():
                    self._again[charge.id] = write

    def write(self, features: TileWriter | None) -> Counter[str]:
        """Write what differs from what is stored; how much that was in each collection."""
        # All that is read: from here on the session is at work with the writes.
        self._load_parents([charge for charge, _ in self._own.values()])
        done: Counter[str] = Counter()
        for written in write_ahead(self._session, self._documents, COLLECTION, self._chunks()):
            done[COLLECTION] += len(written)
            if features is not None:
                for write in written:
                    features.deltas(write.before, write.document)
        if features is not None:
            done.update(features.write(self._session))
        return done

    def _chunks(self) -> Iterator[list[Write]]:
        if self._again:
            yield list(self._again.values())
        for some in in_slices(self._own.values(), _WRITTEN_AT_ONCE):
            yield [self._composed(charge, last) for charge, last in some]

    def _has(self, id_: str) -> bool:
        return id_ in self._own or id_ in self._again

    def _find(self, condition: Mapping[str, Any]) -> Iterator[RawBSONDocument]:
        return find_raw(self._session, self._documents, COLLECTION, condition)

    def _by_charge(self, changes: Sequence[Change]) -> list[tuple[str | None, Change]]:
        """Each change with its charge; None for the delete of a child that no charge has."""
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
        return [(id_ or owners.get((change.table, change.row["id"])), change) for id_, change in keyed]

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

    def _composed(self, charge: Charge, cause: Change) -> Write:
        return Write(charge.before, charge.compose(self._parents, self.rates, self._now), cause)

    def _load_parents(self, charges: Collection[Charge]) -> None:
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
