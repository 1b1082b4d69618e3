"""What every build keeps to, on whichever engine: one builder at a time, and a cut that can be built on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from stripe_platform.cdc.cut import Cut
from stripe_platform.cdc.holes import ChangesLost
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.disk import check_free_space
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.mending import not_made_up_for
from stripe_platform.settings import Settings
from stripe_platform.warehouse.change_log_views import RawTable, read_raw

LOCK_NAME = "build.lock"


class BuilderIsBusy(StripePlatformError):
    """Another process builds or publishes."""

    def __init__(self, held: Path, waited: timedelta) -> None:
        super().__init__(
            f"{held} is still held by another builder after {waited.total_seconds():.0f} s: wait for its run to end "
            "(or end the dbt process that a killed run left behind) and run again"
        )


class RawIsBehind(StripePlatformError):
    """The raw change log does not reach the cut yet."""

    def __init__(self, table: str, partition: int, has: int, needs: int) -> None:
        super().__init__(
            f"raw/{table} holds partition {partition} up to offset {has}, the cut needs {needs}: "
            "drain it first: `stripe-platform run oltp_to_warehouse` does both"
        )


class CutInGap(StripePlatformError):
    """The cut lies before the end of a snapshot without which the change log says nothing sure of the living rows."""

    def __init__(self, table: str, partition: int, cut: int, whole_from: int) -> None:
        super().__init__(
            f"the cut ends at offset {cut} of partition {partition} of {table}, whose rows were read again (after a "
            f"gap, or for a column that replaced another) and are all there only from {whole_from} on: take a newer "
            "cut: `stripe-platform run oltp_to_warehouse`"
        )


class TopicWasRecreated(StripePlatformError):
    """The cut and the change log are of different topics of one name: their offsets cannot be compared."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"the topic of {table} that the cut was made on is not the one whose changes raw/{table} holds: take a "
            "newer cut with `stripe-platform run oltp_to_warehouse`; if that says that the topic was created again, "
            f"`stripe-platform recover {table}` first"
        )


@dataclass(frozen=True)
class Build:
    """A prepared build: the cut that it is made on, and its number, which no other one has."""

    cut: Cut
    number: int


@dataclass(frozen=True)
class Publication:
    """What `publish` did; `size` in bytes."""

    cut: Cut
    size: int


@contextmanager
def builder(settings: Settings, *, timeout: timedelta = timedelta(minutes=10)) -> Iterator[None]:
    """Be the only one who builds or publishes; `BuilderIsBusy` after `timeout`."""
    settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    path = settings.warehouse_folder / LOCK_NAME
    lock = FileLock(path, timeout=timeout.total_seconds())
    try:
        lock.acquire()
    except Timeout as error:
        raise BuilderIsBusy(path, timeout) from error
    try:
        yield
    finally:
        lock.release()


def change_logs_of(settings: Settings, cut: Cut) -> dict[str, RawTable]:
    """The change log of every captured table, to build on a cut.

    `NotEnoughDisk`, `ChangesLost` when changes were lost before Kafka and not made up for, `RawNotBegun` before a
    table's first drain, `TopicWasRecreated`.
    """
    check_free_space(settings)
    if holes := not_made_up_for(settings, cut.holes):
        raise ChangesLost(holes)
    tables = {name: read_raw(settings, name) for name in TABLES_BY_NAME}
    _require_same_topics(cut, tables)
    return tables


def _require_same_topics(cut: Cut, tables: dict[str, RawTable]) -> None:
    """`TopicWasRecreated` where the cut and the change log are of different topics."""
    for name, topic_id in cut.topic_ids.items():
        if name in tables and tables[name].topic_id != topic_id:
            raise TopicWasRecreated(name)


def require_all_up_to(cut: Cut, tables: dict[str, RawTable]) -> None:
    """`RawIsBehind` where the change log ends before the cut, `CutInGap` where it was read again beyond it."""
    for name, raw in tables.items():
        for partition, needs in cut.offsets.get(name, {}).items():
            if (has := raw.next_offsets.get(partition, 0)) < needs:
                raise RawIsBehind(name, partition, has, needs)
            if needs < (whole_from := raw.whole_from.get(partition, 0)):
                raise CutInGap(name, partition, needs, whole_from)


def recreated_tables(held: Cut, cut: Cut) -> set[str]:
    """The tables of the held cut whose topic is another one at the given cut, which is then the newer of the two."""
    return {table for table, topic_id in held.topic_ids.items() if cut.topic_ids.get(table, topic_id) != topic_id}


def newer_cut(held: Cut, cut: Cut) -> Cut:
    """The cut to go on with: staging has taken in all of the held one, and nothing ever leaves it again."""
    is_behind = any(
        cut.offsets.get(table, {}).get(partition, 0) < offset
        for table, partitions in held.offsets.items()
        for partition, offset in partitions.items()
    )
    return held if is_behind else cut
