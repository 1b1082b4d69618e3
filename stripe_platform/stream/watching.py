"""What goes on beside the sinks' processes: their lag is measured, and Dagster is told of their work.

Both go on whatever fails: a thread that ended would leave the last figures standing, as if all were well.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import dagster as dg

from stripe_platform.cdc.lag import Lag
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.connection import connect
from stripe_platform.features.intake import Point, nowhere
from stripe_platform.features.lag import mongodb_lag
from stripe_platform.features.sink import TABLES
from stripe_platform.raw.lag import raw_lag
from stripe_platform.run import instance_of
from stripe_platform.settings import Settings
from stripe_platform.stream.follower import SINKS
from stripe_platform.stream.metrics import Metrics
from stripe_platform.stream.reports import Due, Reports, of_collection, of_log

MEASURED_EVERY_S = 5.0
REPORTS_LOOKED_AT_EVERY_S = 10.0

log = logging.getLogger(__name__)


def measure(settings: Settings, metrics: Metrics, stop: threading.Event) -> None:
    """Show the sinks' lag every few seconds until `stop` is set; as not known where it cannot be measured."""
    while not stop.is_set():
        for sink in SINKS:
            try:
                metrics.measured(sink, _lags(settings, sink))
            except Exception as error:
                metrics.unmeasured(sink)
                log.warning("the lag of sink %s cannot be measured: %s", sink, _told(error))
        stop.wait(MEASURED_EVERY_S)


def _lags(settings: Settings, sink: str) -> Mapping[str, Lag]:
    if sink == "raw":
        return raw_lag(settings)
    with connect(settings) as documents:
        return mongodb_lag(settings, documents, TABLES)


def report(settings: Settings, reports: Reports, stop: threading.Event, at: Callable[[Point], None] = nowhere) -> None:
    """Make the reports that are due every few seconds, and once more when `stop` is set."""
    with ExitStack() as opened:
        instance: dg.DagsterInstance | None = None
        is_last = False
        while not is_last:
            is_last = stop.wait(REPORTS_LOOKED_AT_EVERY_S)
            if not (due := reports.due()):
                continue
            try:
                # Here, and once: whoever runs jobs may hold its storage for a while.
                instance = instance or opened.enter_context(instance_of(settings))
            except Exception as error:
                _put_back(reports, due, error)
                continue
            for sink in SINKS:
                _report_sink(settings, instance, reports, [each for each in due if each.sink == sink], at)


def _report_sink(
    settings: Settings, instance: dg.DagsterInstance, reports: Reports, due: list[Due], at: Callable[[Point], None]
) -> None:
    try:
        made = _made(settings, due)
    except Exception as error:
        _put_back(reports, due, error)
        return
    for number, materialization in enumerate(made):
        try:
            at("reporting")
            instance.report_runless_asset_event(materialization)
            at("reported")
        except Exception as error:
            _put_back(reports, due[number:], error)
            return


def _made(settings: Settings, due: list[Due]) -> list[dg.AssetMaterialization]:
    if not due:
        return []
    if due[0].sink == "raw":
        lags = raw_lag(settings)
        return [of_log(settings, each, lags) for each in due]
    with connect(settings) as documents:
        lags = mongodb_lag(settings, documents, TABLES)
        return [of_collection(documents, each, lags) for each in due]


def _put_back(reports: Reports, due: Iterable[Due], error: Exception) -> None:
    reports.put_back(due)
    log.warning("Dagster could not be told of the stream's work, which is tried again: %s", _told(error))


def _told(error: Exception) -> str:
    # The words of others may quote what they were given.
    return str(error) if isinstance(error, StripePlatformError) else type(error).__name__
