"""The store as production has it: the one place where drain, documents and features meet."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession

from stripe_platform.features import charges, parents, projector, tiles
from stripe_platform.features.changes import Change
from stripe_platform.features.collections import ensure_collections
from stripe_platform.features.connection import Documents, connect
from stripe_platform.features.offsets import begun_at
from stripe_platform.features.payments import payment_of
from stripe_platform.features.projection import Store
from stripe_platform.features.transaction import writing
from stripe_platform.settings import Settings

# The captured tables whose changes come into the store.
TABLES = projector.TABLES


class TilesOfCharges:
    """The tiles' part in one transaction: what the charges' documents, as they were and as they are, change in them."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._deltas: list[dict[tiles.TileKey, tiles.Tile]] = []

    def deltas(self, before: RawBSONDocument | None, after: Mapping[str, Any]) -> None:
        """Take note that a document was made (before: None) or replaced."""
        self._deltas.append(tiles.deltas(None if before is None else payment_of(before), payment_of(after)))

    def write(self, session: ClientSession) -> Mapping[str, int]:
        """Write what was noted; {collection: tiles that changed}."""
        changed = tiles.total(self._deltas)
        tiles.write(session, self._documents, changed, begun_at(session, self._documents))
        return Counter(place.entity.collection for place in changed)


class FeatureProjector:
    """Documents and, unless they are left out, the features that follow from them."""

    ahead = staticmethod(projector.ahead)
    read_first = (tuple(parents.KEYS), (charges.COLLECTION,))

    def __init__(self, *, features: bool = True) -> None:
        self._features = features

    def project(
        self, session: ClientSession, documents: Documents, changes: Sequence[Change], /
    ) -> projector.Projected:
        """As `projector.project`, with the tiles in the same transaction."""
        return projector.project(session, documents, changes, self._tiles(documents))

    def refresh(
        self, session: ClientSession, documents: Documents, changes: Sequence[Change], ids: list[str], /
    ) -> int:
        """As `projector.refresh`, with the tiles in the same transaction."""
        return projector.refresh(session, documents, changes, ids, self._tiles(documents))

    def _tiles(self, documents: Documents) -> TilesOfCharges | None:
        return TilesOfCharges(documents) if self._features else None


@contextmanager
def open_documents(settings: Settings) -> Iterator[Documents]:
    """The database with its collections as they shall be; closed at the end."""
    with connect(settings) as documents:
        ensure_collections(documents)
        yield documents


@contextmanager
def open_store(settings: Settings, *, features: bool = True) -> Iterator[Store]:
    """The store, for one writer; closed at the end. Without `features` the tiles are not written."""
    # The session first: it ends the transaction of a writer that was killed, which an altered index would wait for.
    with connect(settings) as documents, writing(settings, documents) as session:
        ensure_collections(documents)
        yield Store(documents, FeatureProjector(features=features), session)
