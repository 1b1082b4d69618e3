"""What the writers of the store ask of those who turn changes into documents."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pymongo.client_session import ClientSession
from pymongo.database import Database

from stripe_platform.features.changes import Change

Documents = Database[dict[str, Any]]


class Unprojectable(Exception):
    """A change that cannot become a document; the reason holds nothing of it.

    Not for users: its record goes to the dead letters and the other changes are projected without it.
    """

    def __init__(self, change: Change, reason: str) -> None:
        super().__init__(reason)
        self.change, self.reason = change, reason


class Projected(Protocol):
    """What became of some changes: those applied, those stale by the guard, and the documents written.

    `written` is {collection: documents}, features among them; a collection that did not change is not in it.
    """

    @property
    def applied(self) -> int: ...  # noqa: D102

    @property
    def stale(self) -> int: ...  # noqa: D102

    @property
    def documents(self) -> int: ...  # noqa: D102

    @property
    def written(self) -> Mapping[str, int]: ...  # noqa: D102


class Projector(Protocol):
    """Turns changes into documents; a module of functions with these names is one.

    Each raises `Unprojectable` for a change that cannot be applied: all is then done again without it.
    """

    def project(self, session: ClientSession, documents: Documents, changes: Sequence[Change], /) -> Projected:
        """Apply the changes inside the session's transaction, those of a partition in their order."""

    def ahead(self, documents: Documents, changes: Sequence[Change], /) -> Iterable[list[str]]:
        """The documents to `refresh` before these changes are projected, in slices; none when they are few."""

    def refresh(
        self, session: ClientSession, documents: Documents, changes: Sequence[Change], ids: list[str], /
    ) -> int:
        """Write a slice of `ahead` as the changes will leave it, in a transaction of its own; documents written.

        Harmless to repeat: the offsets do not move with it.
        """


@dataclass(frozen=True)
class Store:
    """The database, who makes documents of changes, and the session of the one writer who has opened it.

    `transaction.writing` gives the session: of two stores opened on one database each has its own.
    """

    documents: Documents
    projector: Projector
    session: ClientSession
