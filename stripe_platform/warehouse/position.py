"""How far staging has taken in the change log."""

from dataclasses import dataclass

from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings
from stripe_platform.warehouse.query import query_rows


@dataclass(frozen=True)
class Place:
    """The last offset of a partition in the change log below the cut, and in staging; None: no change at all."""

    table: str
    partition: int
    in_log: int | None
    in_staging: int | None


def partitions_off_cut(settings: Settings) -> list[Place]:
    """The partitions in which the published staging does not end where the change log ends at the published cut."""
    return [
        Place(table, partition, in_log, in_staging)
        for table in TABLES_BY_NAME
        for partition, in_log, in_staging in query_rows(
            settings,
            f"""
            select _partition, log._offset, state._offset
            from (select _partition, max(_offset) as _offset from raw.{table} group by _partition) as log
            full join
                (select _partition, max(_offset) as _offset from staging_state.state_{table} group by _partition)
                as state using (_partition)
            where log._offset is distinct from state._offset
            """,
        )
    ]
