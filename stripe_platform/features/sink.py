"""The store as production has it: the one place where drain, documents and projector meet."""

from collections.abc import Iterator
from contextlib import contextmanager

from stripe_platform.features import projector  # type: ignore[attr-defined]
from stripe_platform.features.collections import ensure_collections  # type: ignore[import-untyped]
from stripe_platform.features.connection import connect  # type: ignore[import-untyped]
from stripe_platform.features.projection import Documents, Store
from stripe_platform.features.transaction import writing
from stripe_platform.settings import Settings


@contextmanager
def open_documents(settings: Settings) -> Iterator[Documents]:
    """The database with its collections as they shall be; closed at the end."""
    with connect(settings) as documents:
        ensure_collections(documents)
        yield documents


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The store, for one writer; closed at the end."""
    with open_documents(settings) as documents, writing(settings, documents) as session:
        yield Store(documents, projector, session)
