"""How far the document store is behind the topics."""

from stripe_platform.cdc.lag import Lag, lag_behind
from stripe_platform.features.offsets import stored_offsets
from stripe_platform.features.projection import Documents
from stripe_platform.features.transaction import named_failures
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings


def mongodb_lag(settings: Settings, documents: Documents) -> dict[str, Lag]:
    """The lag of every captured table's documents."""
    with named_failures(settings):
        stored = stored_offsets(documents)
    return lag_behind(settings, stored.next_offsets(table.name for table in CAPTURED_TABLES))
