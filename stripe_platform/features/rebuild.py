"""Collections built anew from the raw change log, compared with those in place, and put in their place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from stripe_platform.errors import StripePlatformError
from stripe_platform.features import charges, entities, parents, shadow
from stripe_platform.features.comparison import documents_that_differ
from stripe_platform.features.hold import Hold, holding
from stripe_platform.features.offsets import Stored, begin, paths, stored_offsets
from stripe_platform.features.payments import Entity
from stripe_platform.features.projection import Store
from stripe_platform.features.raw_source import Source, raw_source
from stripe_platform.features.rebuilding import project_logs, sum_up_charges
from stripe_platform.features.transaction import named_failures
from stripe_platform.settings import Settings

Sources = Callable[[Settings, Stored, Sequence[str]], Source]
# Where a test may stop the process; production passes `nowhere`.
Point = Literal["held", "projected", "compared", "decided", "finished"]

_TILES = tuple(entity.collection for entity in Entity)


class UnknownCollection(StripePlatformError):
    """There is no such collection to build anew."""

    def __init__(self, names: Iterable[str]) -> None:
        known = [collection for group in GROUPS for collection in group.collections]
        super().__init__(
            f"{', '.join(names)}: not built from captured tables; name one of {', '.join(known)}, or a table that "
            "they are made of"
        )


@dataclass(frozen=True)
class Group:
    """Collections that are built together, from the logs of these tables; from the charges' documents without any."""

    collections: tuple[str, ...]
    tables: tuple[str, ...]


# Parents before what embeds them, so that nothing is composed twice.
GROUPS: tuple[Group, ...] = (
    Group((charges.COLLECTION, parents.COLLECTION, *_TILES), (*parents.KEYS, *charges.TABLES)),
    *(Group((table,), (table,)) for table in entities.TABLES),
)


@dataclass(frozen=True)
class Rebuilt:
    """What a group came to: documents now, and how many of those in place before were other ones, by collection."""

    group: Group
    documents: Mapping[str, int]
    differed: Mapping[str, int]


def groups_of(names: Iterable[str]) -> list[Group]:
    """What has to be built for these collections or tables (`features/` before a name says nothing).

    `UnknownCollection` for any other name.
    """
    wanted = [name.removeprefix("features/") for name in names]
    found = [group for group in GROUPS if set(wanted) & ({*group.collections, *group.tables} - set(_TILES))]
    if unknown := [name for name in wanted if not any(name in (*g.collections, *g.tables) for g in GROUPS)]:
        raise UnknownCollection(unknown)
    of_tiles = tuple(name for name in _TILES if name in wanted)
    if of_tiles and GROUPS[0] not in found:
        found.append(Group(of_tiles, ()))
    return found


def nowhere(point: Point) -> None:
    """Do nothing at any point."""


def rebuild(
    settings: Settings,
    store: Store,
    names: Iterable[str],
    *,
    sources: Sources = raw_source,
    at: Callable[[Point], None] = nowhere,
) -> list[Rebuilt]:
    """Build the groups of these collections anew, one after the other, while no other writer changes them.

    Each is built beside from what the sink has taken, compared, and put in place with the offsets and holes that
    it stands for. Killed at any point it has changed nothing, or the next writer puts all of it in place. `Held` while
    another rebuilds, `HoldLost`, `UnknownCollection`; errors as `raw_source`.
    """
    return [_rebuilt(settings, store, group, sources, at) for group in groups_of(names)]


def _rebuilt(settings: Settings, store: Store, group: Group, sources: Sources, at: Callable[[Point], None]) -> Rebuilt:
    documents, began = store.documents, datetime.now(UTC)
    with named_failures(settings):
        begin(documents)
        with holding(documents, group.collections) as hold:
            at("held")
            shadow.drop(documents)
            stored = stored_offsets(documents)
            source = sources(settings, stored, group.tables) if group.tables else Source({}, {})
            beside = Store(shadow.made(documents, group.collections, hold.shadow), store.projector, store.session)
            if group.tables:
                project_logs(settings, documents, beside, source, lambda: at("projected"))
            else:
                sum_up_charges(settings, documents, beside, group.collections, lambda: at("projected"))
            rebuilt = _compared(group, store, hold)
            at("compared")
            hold.decide(group.collections, _sets(source, began))
            at("decided")
            hold.finish()
            at("finished")
    return rebuilt


def _sets(source: Source, began: datetime) -> dict[str, Any]:
    sets = paths({table: log.offsets for table, log in source.logs.items()})
    sets |= {f"holes.{table}": hole for table, hole in source.holes.items()}
    for table, log in source.logs.items():
        counted_from = {str(partition): offset for partition, offset in log.counted_from.items()}
        sets[f"rebuilt.{table}"] = {"at": began, "counted_from": counted_from}
    return sets


def _compared(group: Group, store: Store, hold: Hold) -> Rebuilt:
    documents = store.documents
    beside = {name: shadow.shadow_name(name, hold.shadow) for name in group.collections}
    return Rebuilt(
        group,
        {name: documents[other].estimated_document_count() for name, other in beside.items()},
        {name: documents_that_differ(documents, name, other) for name, other in beside.items()},
    )


def told(rebuilt: Iterable[Rebuilt]) -> str:
    """What was built, for people."""
    lines = []
    for each in rebuilt:
        source = "the raw change log" if each.group.tables else "the documents of charges"
        lines.append(f"built anew from {source}: {', '.join(each.group.collections)}")
        lines += [
            f"{name}: {count:,} documents, {_verdict(each.differed[name])}" for name, count in each.documents.items()
        ]
    return "\n".join(lines)


def _verdict(differed: int) -> str:
    return f"{differed:,} differed, now as the log says" if differed else "equal to what was there"
