"""Going on with a table whose definition changed in PostgreSQL in a way that is not followed unasked."""

from dataclasses import dataclass

from stripe_platform.raw.change_log import ChangeLog, retry_lost_race
from stripe_platform.raw.definition import require_captured, table_definition
from stripe_platform.raw.schema import definition
from stripe_platform.settings import Settings


@dataclass(frozen=True)
class Acceptance:
    """What the log of a table goes on with; types in the log's words.

    `gone` columns keep the values stored so far and are null from here on; `new` ones are null in rows that have not
    changed since; of `retyped` ones {name: (type before, type now)} the log has the wider type.
    """

    gone: tuple[str, ...]
    new: tuple[str, ...]
    retyped: dict[str, tuple[str, str]]

    @property
    def is_empty(self) -> bool:
        """The log follows the definition already."""
        return not (self.gone or self.new or self.retyped)


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
    return "\n".join(lines)


@retry_lost_race
def accept_schema(settings: Settings, table: str) -> Acceptance:
    """Have the log of a table go on with the table's definition of today; nothing that it holds is lost.

    Harmless to repeat, and beside a drain. `SchemaNotAcceptable` when no type holds a column's old and new values,
    `NotCaptured` for a table that is not captured.
    """
    require_captured([table])
    row = table_definition(settings, table)
    log = ChangeLog.existing(settings, table)
    if log is None:
        return Acceptance((), (), {})
    before, now = log.followed, definition(row)
    log.accept(row)
    return Acceptance(
        gone=tuple(name for name in before if name not in now),
        new=tuple(name for name in now if name not in before),
        retyped={name: (was, now[name]) for name, was in before.items() if now.get(name, was) != was},
    )
