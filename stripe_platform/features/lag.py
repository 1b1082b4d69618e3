"""How far the document store is behind the topics."""

from collections.abc import Iterable

from stripe_platform.cdc.lag import Lag, lag_behind
from stripe_platform.cdc.offsets import known_topic_ids
from stripe_platform.features.offsets import stored_offsets
from stripe_platform.features.projection import Documents
from stripe_platform.features.transaction import named_failures
from stripe_platform.settings import Settings


def mongodb_lag(settings: Settings, documents: Documents, tables: Iterable[str]) -> dict[str, Lag]:
    """The lag of each table's documents; tables whose topic is missing are left out."""
    there, _ = known_topic_ids(settings, tables)
    with named_failures(settings):
        stored = stored_offsets(documents)
    return lag_behind(settings, stored.next_offsets(there))
