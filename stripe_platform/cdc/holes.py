"""Holes: changes that were lost before they came to Kafka. Noticed here, kept in PostgreSQL, made up for by each store.

A connector that starts without stored offsets begins with what the log holds by then, and says so in its notices
before its first change. A table that was taken out of the publication is noticed by the migrator. Either way rows that
were deleted meanwhile live on in every store, until it forgets them (`stripe_platform/raw/mending.py`).
"""

from collections.abc import Iterable, Mapping

from stripe_platform.cdc.offsets import notice_offsets, notice_topic_id, topic_ids
from stripe_platform.cdc.snapshot_notices import Notices
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.replication import record_holes
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import Settings

BEGUN_ANEW = "the connector began anew, without stored offsets"

# A hole says nothing of a topic that was made after it.
_HOLES = """
SELECT DISTINCT ON (holes.table_name) holes.table_name, holes.id::text
FROM cdc.holes AS holes
INNER JOIN cdc.snapshots AS older
    ON older.table_name = holes.table_name AND coalesce(older.hole, 0) < holes.number
INNER JOIN unnest(%s::text[], %s::text[]) AS topics (table_name, topic_id)
    ON topics.table_name = older.table_name AND topics.topic_id = older.topic_id
ORDER BY holes.table_name, holes.number DESC
"""
_NOTICES_READ = "SELECT topic_id, next_offset FROM cdc.notices_read"
_READ = """
INSERT INTO cdc.notices_read (topic_id, next_offset) VALUES (%s, %s)
ON CONFLICT (is_only) DO UPDATE SET topic_id = excluded.topic_id, next_offset = excluded.next_offset
"""


class ChangesLost(StripePlatformError):
    """Changes of captured tables are in no topic, and the stores do not know yet."""

    def __init__(self, tables: Iterable[str]) -> None:
        names = sorted(tables)
        super().__init__(
            f"changes of {', '.join(names)} were lost before they came to Kafka, so that rows deleted since would live "
            "on in the stores; nothing is built on that: have the tables read again and the rest forgotten by "
            "`stripe-platform recover`"
        )


def known_holes(settings: Settings) -> dict[str, str]:
    """{table: the id of its last hole} of the captured tables whose topics hold changes from before one.

    Looks through the connector's notices first, those that are not read yet.
    """
    notice_new_streams(settings)
    return recorded_holes(settings)


def recorded_holes(settings: Settings) -> dict[str, str]:
    """As `known_holes`, of those noticed so far; changes nothing."""
    ids = topic_ids(settings, [table.name for table in CAPTURED_TABLES])
    with connect(settings) as postgres:
        return dict(postgres.execute(_HOLES, [list(ids), list(ids.values())]).fetchall())


def has_begun_anew(settings: Settings) -> bool:
    """Whether the connector has begun anew since anybody noticed; changes nothing."""
    with connect(settings) as postgres:
        read = postgres.execute(_NOTICES_READ).fetchone()
    return _has_begun_anew(settings, read, notice_topic_id(settings), *notice_offsets(settings))


def notice_new_streams(settings: Settings) -> None:
    """Record a hole of every table taken so far, once, if the connector has begun anew since this was last called."""
    topic_id = notice_topic_id(settings)
    with connect(settings) as postgres:
        if postgres.execute(_NOTICES_READ).fetchone() == (topic_id, notice_offsets(settings)[1]):
            return
        # Two that look at once find one hole.
        postgres.execute("LOCK TABLE cdc.notices_read IN EXCLUSIVE MODE")
        read = postgres.execute(_NOTICES_READ).fetchone()
        begin, end = notice_offsets(settings)
        if _has_begun_anew(settings, read, topic_id, begin, end):
            record_holes(postgres, [table.name for table in CAPTURED_TABLES], BEGUN_ANEW)
        postgres.execute(_READ, [topic_id, end])


def _has_begun_anew(settings: Settings, read: tuple[str, int] | None, topic_id: str, begin: int, end: int) -> bool:
    if read is not None and (read[0] != topic_id or read[1] < begin):
        # Notices were deleted unread: nobody knows.
        return True
    position = read[1] if read else 0
    if position == end:
        return False
    with Notices(settings, position) as notices:
        # The first notice of all is that of the first start.
        return any(not start.had_offsets and start.offset > 0 for start in notices.starts_before(end))


def holed(pending: Iterable[str], holes: Mapping[str, str]) -> tuple[str, ...]:
    """Of the tables that need a snapshot, those for which a snapshot alone is not enough."""
    return tuple(table for table in pending if table in holes)
