"""What the writers of the store ask of those who turn changes into documents."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pymongo.client_session import ClientSession
from pymongo.database import Database

from stripe_platform.features.changes import Change

Documents = Database[dict[str, Any]]


class Unprojectable(Exception):
    """Changes that cannot become documents, each with the reason, which holds nothing of it.

    Not for users: their records go to the dead letters and the other changes are projected without them.
    """

    def __init__(self, *refused: tuple[Change, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(reason for _, reason in refused)))
        # One change may have made several documents that cannot be.
        self.refused = tuple({id(change): (change, reason) for change, reason in refused}.values())


def without(changes: Iterable[Change], refused: Iterable[tuple[Change, str]]) -> list[Change]:
    """The changes that are not among the refused ones."""
    gone = {id(change) for change, _ in refused}
    return [change for change in changes if id(change) not in gone]


def take_all(takes: Iterable[tuple[Callable[[Change], bool], Change]]) -> int:
    """Have each change taken; how many were stale. `Unprojectable` with all that cannot be taken.

    All of them, for what is projected again is the whole batch.
    """
    stale = 0
    refused: list[tuple[Change, str]] = []
    for take, change in takes:
        try:
            stale += not take(change)
        except Unprojectable as error:
            refused += error.refused
    if refused:
        raise Unprojectable(*refused)
    return stale


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

    Each raises `Unprojectable` for changes that cannot be applied: all is then done again without them. `read_first`
    are groups of tables that are read one after the other, and before all others, while a backlog of them waits: any
    order leads to the same documents, but in this one each is written whole at once.
    """

    @property
    def read_first(self) -> Sequence[Collection[str]]: ...  # noqa: D102

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
