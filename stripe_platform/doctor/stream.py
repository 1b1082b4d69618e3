"""Looks at the stream: connector, replication slot, topics, snapshots."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from stripe_platform.cdc.connector import (
    HALTED,
    NOT_REGISTERED,
    POSITION_GONE,
    ConnectorState,
    connector_state,
    lost_position,
)
from stripe_platform.cdc.holes import has_begun_anew, holed, recorded_holes
from stripe_platform.cdc.slot import SLOT, Slot, slot_state
from stripe_platform.cdc.snapshot_registry import recorded_pending
from stripe_platform.cdc.topics import declared_topics, partitions_found
from stripe_platform.doctor.finding import Finding, ok, problem, warning
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings

PATIENCE = timedelta(seconds=3)
# A tenth of what PostgreSQL keeps before it gives the slot up (`max_slot_wal_keep_size`).
KEPT_WARNING_BYTES = 1024**3
SEE_CONNECT = "`stripe-platform logs connect` tells why; mend the cause, then `stripe-platform up`"
RECOVER = "changes are lost, no row of PostgreSQL is: `stripe-platform recover` reads all again and mends the stores"


def look_at_connector(settings: Settings) -> Finding:
    """The connector and its task, with the reason when one has failed."""
    return judge_connector(connector_state(settings, patience=PATIENCE))


def judge_connector(state: ConnectorState) -> Finding:
    """By Connect's own words."""
    if state.is_running:
        return ok("connector", state.describe())
    if state.connector == NOT_REGISTERED:
        return problem("connector", "not registered", "`stripe-platform up` registers it")
    if state.failure == POSITION_GONE:
        return problem("connector", state.describe(), RECOVER)
    if state.has_failed:
        return problem(
            "connector", state.describe(), f"mend the cause, then `stripe-platform up` restarts it; {SEE_CONNECT}"
        )
    if state.connector in HALTED:
        return problem("connector", state.describe(), "`stripe-platform up` resumes it")
    return warning("connector", state.describe(), "wait a moment; if it stays so: `stripe-platform logs connect`")


def look_at_slot(settings: Settings) -> Finding:
    """The slot, as PostgreSQL sees it."""
    return judge_slot(slot_state(settings), lost_position(settings, patience=PATIENCE))


def judge_slot(slot: Slot | None, lost: str | None = None) -> Finding:
    """A slot that is not read keeps PostgreSQL's log, until it is lost; `lost` says why it cannot be read on."""
    title = "replication slot"
    if lost:
        return problem(title, lost, RECOVER)
    if slot is None:
        return problem(
            title, f"there is no slot {SLOT!r}", "`stripe-platform up` registers the connector, which makes it"
        )
    found = f"{slot.describe()}, {slot.kept_bytes:,} bytes of log kept for it"
    if not slot.is_ready:
        return warning(title, found, "end the oldest transactions: `SELECT pid, xact_start FROM pg_stat_activity`")
    if not slot.is_read:
        return problem(title, found, SEE_CONNECT)
    if slot.wal_status == "unreserved" or slot.kept_bytes > KEPT_WARNING_BYTES:
        remedy = (
            "the connector does not keep up, see `stripe-platform logs connect`; PostgreSQL gives a slot up at 10 GB"
        )
        return warning(title, found, remedy)
    return ok(title, found)


def look_at_topics(settings: Settings) -> Finding:
    """Every declared topic: there, with its partitions."""
    return judge_topics(partitions_found(settings), {topic.name: topic.partitions for topic in declared_topics()})


def judge_topics(found: Mapping[str, int | None], declared: Mapping[str, int]) -> Finding:
    """A topic that is missing can be made, one with other partitions cannot be mended in place."""
    differing = {name: (found.get(name), wanted) for name, wanted in declared.items() if found.get(name) != wanted}
    altered = [f"{name} has {has} partitions, declared {wanted}" for name, (has, wanted) in differing.items() if has]
    if altered:
        remedy = "restore `topic_partitions` in oltp/tables.py, or delete the topic and take a new snapshot"
        return problem("topics", "; ".join(altered), remedy)
    if differing:
        return problem("topics", f"missing: {', '.join(differing)}", "`stripe-platform up` creates them")
    return ok("topics", f"{len(declared)} with the declared partitions")


def look_at_snapshots(settings: Settings) -> Finding:
    """The tables whose rows from before their first change are not in their topics yet."""
    # Only read: what an examination wrote in a database whose publication is gone, no connector could read past.
    if has_begun_anew(settings):
        return judge_snapshots(list(TABLES_BY_NAME), list(TABLES_BY_NAME))
    pending = recorded_pending(settings)
    return judge_snapshots(pending, holed(pending, recorded_holes(settings)))


def judge_snapshots(pending: Sequence[str], lost: Sequence[str] = ()) -> Finding:
    """Every store downstream is short of those rows until then; of tables that lost changes it has rows too many."""
    if not pending:
        return ok("snapshots", "every captured table is taken")
    if lost:
        return problem("snapshots", f"changes were lost before they came to Kafka: {', '.join(lost)}", RECOVER)
    remedy = "`stripe-platform snapshot` takes them, and so does the next build"
    return warning("snapshots", f"not taken yet: {', '.join(pending)}", remedy)
