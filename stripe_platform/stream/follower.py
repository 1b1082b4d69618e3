"""One sink following the topics: drain after drain from the sink's own offsets, with pauses after failures."""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta

from stripe_platform.cdc.report import DrainReport, TablesStopped
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.drain import drain as drain_documents
from stripe_platform.features.following import BatchDone, Follow
from stripe_platform.features.sink import TABLES, open_store
from stripe_platform.raw.drain import FLUSH_ROWS
from stripe_platform.raw.drain import drain as drain_raw
from stripe_platform.settings import Settings
from stripe_platform.stream.progress import Progress

Tell = Callable[[Progress], None]
Drain = Callable[[Settings, threading.Event, Tell], None]

# Each drain looks anew at topics, definitions and stored offsets: a table that has stopped is tried again by then.
FOLLOWED = timedelta(minutes=1)
# Of small commits: a few seconds of them in one file, for the lake is for builds and not for readers in a hurry.
RAW_EVERY_S = 10.0
# It does not hear of a stop before its end, and is to end well before it would be killed for that.
RAW_LIMIT = timedelta(seconds=10)
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

log = logging.getLogger(__name__)


def follow(settings: Settings, sink: str, stop: threading.Event, tell: Tell) -> None:
    """Keep the sink (`raw` or `mongodb`) at the end of the topics until `stop` is set.

    A drain that fails is logged and begun again from the stored offsets, after 1 s, twice as long each time, 30 s at
    most; changes that were committed end the growth. Tables that stop are logged, tried again by the next drain, and
    keep no other waiting. An error that nobody raised on purpose ends the process: whoever watches starts it anew.
    """
    pause = FIRST_PAUSE_S

    def told(progress: Progress) -> None:
        nonlocal pause
        if progress.changes:
            pause = FIRST_PAUSE_S
        tell(progress)

    while not stop.is_set():
        try:
            SINKS[sink](settings, stop, told)
            pause = FIRST_PAUSE_S
        except StripePlatformError as error:
            if isinstance(error, TablesStopped) and error.others:
                log.warning("%s: tables stopped, the others go on: %s", sink, error)
                continue
            log.warning("%s: %s; next try in %.0f s", sink, error, pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _follow_raw(settings: Settings, stop: threading.Event, tell: Tell) -> None:
    stopped = None
    try:
        report = drain_raw(settings, limit=RAW_LIMIT)
    except TablesStopped as error:
        report, stopped = error.report, error
    rows = {table: drained.rows for table, drained in report.tables.items() if drained.rows}
    tell(Progress(rows, seconds=report.seconds))
    if not _is_backlog(report):
        stop.wait(RAW_EVERY_S)
    if stopped:
        raise stopped


def _is_backlog(report: DrainReport) -> bool:
    """More was left than what came during the drain: while payments are made, the lag after one is hardly ever 0."""
    return report.moved and (report.seconds > RAW_LIMIT.total_seconds() or report.lag >= FLUSH_ROWS)


def _follow_documents(settings: Settings, stop: threading.Event, tell: Tell) -> None:
    def told(done: BatchDone) -> None:
        tell(Progress(done.changes, done.stale, done.dead_letters, done.seconds, done.written))

    with open_store(settings) as store:
        report = drain_documents(settings, TABLES, store=store, limit=FOLLOWED, follow=Follow(stop.is_set, told))
    if report.held:
        raise report.held


SINKS: Mapping[str, Drain] = {"raw": _follow_raw, "mongodb": _follow_documents}
