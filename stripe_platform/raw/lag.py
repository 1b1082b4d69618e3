"""How far the raw change log is behind its topics."""

from stripe_platform.cdc.lag import Lag, lag_behind
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.settings import Settings


def raw_lag(settings: Settings) -> dict[str, Lag]:
    """The lag of every captured table's log."""
    return lag_behind(settings, {table.name: next_offsets(settings, table.name) for table in CAPTURED_TABLES})
