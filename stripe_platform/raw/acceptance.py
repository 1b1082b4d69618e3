"""Going on with a table whose definition changed in PostgreSQL in a way that is not followed unasked."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa

from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.cdc.snapshot import SNAPSHOT_LIMIT, take_snapshots
from stripe_platform.raw.change_log import ChangeLog, retry_lost_race
from stripe_platform.raw.definition import postgres_clock, require_captured, table_definition
from stripe_platform.raw.schema import FollowedColumn, definition, definition_after
from stripe_platform.settings import Settings


@dataclass(frozen=True)
class Acceptance:
    """What the log of a table goes on with; types in the log's words.

    `gone` columns keep the values stored so far and are null from here on; `new` ones are null in rows that have not
    changed since; of `retyped` ones {name: (type before, type now)} the log has the wider type. `replaced` ones bear
    the name of an earlier column: the living rows were read again.
    """

    gone: tuple[str, ...]
    new: tuple[str, ...]
    retyped: dict[str, tuple[str, str]]
    replaced: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """The log follows the definition already."""
        return not (self.gone or self.new or self.retyped or self.replaced)


def told(table: str, accepted: Acceptance) -> str:
    """What was accepted, in lines for a person."""
    if accepted.is_empty:
        return f"raw/{table} follows the definition of {table} already"
    lines = [f"{name}: its values so far stay, from here on it is null" for name in accepted.gone]
    lines += [
        f"{name}: taken in; to have it in rows that have not changed since, too: `stripe-platform snapshot {table} "
        "--again`"
        for name in accepted.new
    ]
    lines += [
        f"{name}: was {was}, is {now}, the log has room for both; if PostgreSQL changed the values, too: "
        f"`stripe-platform snapshot {table} --again`"
        for name, (was, now) in accepted.retyped.items()
    ]
    lines += [
        f"{name}: another column than before; all living rows were read again, and the next build has its values alone"
        for name in accepted.replaced
    ]
    return "\n".join(lines)


def accept_schema(settings: Settings, table: str, *, limit: timedelta = SNAPSHOT_LIMIT) -> Acceptance:
    """Have the log of a table go on with the table's definition of today; nothing that it holds is lost.

    Where a column bears the name of an earlier one, a snapshot of the table is taken first, and no build is made on a
    cut from before its end: no living row is shown with a value of the earlier column. The log keeps those values.

    Harmless to repeat, and beside a drain: ended at any point, it is called again. `SchemaNotAcceptable` when no type
    holds a column's old and new values, `NotCaptured` for a table that is not captured, `SnapshotNotTaken` after
    `limit`; then nothing was accepted.
    """
    require_captured([table])
    # The log first: `ChangeLog.go_on` says why.
    log = ChangeLog.existing(settings, table)
    if log is None:
        return Acceptance((), (), {})
    row = table_definition(settings, table)
    log.refuse_unacceptable(row)
    accepted = _acceptance(log, row)
    whole_from = _read_again(settings, table, limit) if accepted.replaced else {}
    try:
        _accept(settings, table, log.followed, row, whole_from)
    except _FollowedMeanwhile:
        return accept_schema(settings, table, limit=limit)
    return accepted


def _acceptance(log: ChangeLog, row: pa.Schema) -> Acceptance:
    before, now, replaced = log.followed, definition(row), log.replaced(row)
    return Acceptance(
        gone=tuple(name for name in before if name not in now),
        new=tuple(name for name in now if name not in before and name not in replaced),
        retyped={
            name: (was.type, now[name].type)
            for name, was in before.items()
            if name in now and now[name].type != was.type and name not in replaced
        },
        replaced=replaced,
    )


def _read_again(settings: Settings, table: str, limit: timedelta) -> dict[int, int]:
    """Have every living row of the table read again; {partition: offset below which all of them are in its topic}."""
    asked_at = postgres_clock(settings)
    is_taken = False
    while not is_taken:
        # One that was under way may have read rows with the earlier column.
        taken = take_snapshots(settings, [table], again=True, limit=limit)
        is_taken = any(snapshot.table == table and snapshot.requested_at >= asked_at for snapshot in taken)
    return dict(last_stable_offsets(settings, [table])[table])


class _FollowedMeanwhile(Exception):
    """Another process had the log follow another definition: what was found out before counts for nothing."""


@retry_lost_race
def _accept(
    settings: Settings,
    table: str,
    before: Mapping[str, FollowedColumn],
    row: pa.Schema,
    whole_from: Mapping[int, int],
) -> None:
    log = ChangeLog.existing(settings, table)
    # An attempt of this call that lost a race may have recorded the definition already.
    if log is None or log.followed not in (before, definition_after(before, row)):
        raise _FollowedMeanwhile
    if whole_from:
        # First: once the definition is accepted, what a snapshot has to set right is drained and built on.
        log.refuse_cuts_below(whole_from)
    log.accept(row)
