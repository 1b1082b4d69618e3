"""Writing changes into the store: every transaction fenced by the store's version, by whomever it is made."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pymongo.client_session import ClientSession

from stripe_platform.features.changes import Change
from stripe_platform.features.offsets import TableOffsets, advance
from stripe_platform.features.projection import Projected, Store
from stripe_platform.features.transaction import in_transaction, named_failures
from stripe_platform.settings import Settings

T = TypeVar("T")
Step = Callable[[ClientSession], None]


class Writer:
    """Writes to the store as long as nobody else does; `version` is the one that the store had when it was read."""

    def __init__(self, settings: Settings, store: Store, version: int) -> None:
        self._settings, self._store, self._version = settings, store, version

    def write(
        self, changes: Sequence[Change], moved: Mapping[str, TableOffsets], *, before: Step, after: Step
    ) -> Projected | None:
        """Move the offsets, then project the changes between the two steps, all in one transaction.

        Returns what was projected; None without changes. `LostRace` when another writer was faster, `Unprojectable`
        for a change to leave out: nothing of this call but refreshed documents is there then. The steps may be
        repeated before the transaction is committed.
        """
        documents, projector = self._store.documents, self._store.projector

        def body(session: ClientSession) -> Projected | None:
            advance(session, documents, self._version, moved)
            before(session)
            done = projector.project(session, documents, changes) if changes else None
            after(session)
            return done

        if changes:
            self._refresh(changes)
        return self._commit(body)

    def _refresh(self, changes: Sequence[Change]) -> None:
        documents, projector = self._store.documents, self._store.projector

        def body(ids: list[str], session: ClientSession) -> None:
            advance(session, documents, self._version, {})
            projector.refresh(session, documents, changes, ids)

        with named_failures(self._settings):
            for ids in projector.ahead(documents, changes):
                self._commit(partial(body, ids))

    def _commit(self, body: Callable[[ClientSession], T]) -> T:
        done = in_transaction(self._settings, self._store.session, body)
        self._version += 1
        return done
