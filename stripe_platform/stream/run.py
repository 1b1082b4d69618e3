"""The continuous mode: a process per sink, watched; their lag measured; metrics served; Dagster told."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import start_http_server

from stripe_platform.cdc.lag import Lag
from stripe_platform.errors import StripePlatformError
from stripe_platform.features.connection import connect
from stripe_platform.features.intake import Point, nowhere
from stripe_platform.features.lag import mongodb_lag
from stripe_platform.features.sink import TABLES
from stripe_platform.raw.lag import raw_lag
from stripe_platform.run import instance_of
from stripe_platform.settings import Settings
from stripe_platform.stream.follower import SINKS, follow
from stripe_platform.stream.metrics import Metrics
from stripe_platform.stream.process import SinkProcess
from stripe_platform.stream.progress import Progress
from stripe_platform.stream.reports import Reports

HOST = "127.0.0.1"
LOOK_S = 0.5
MEASURED_EVERY_S = 5.0
REPORTS_LOOKED_AT_EVERY_S = 10.0

log = logging.getLogger(__name__)


def run_sink(settings: Settings, sink: str, *, is_watched: bool = False) -> None:
    """Follow the topics with one sink until SIGINT or SIGTERM; progress goes to stdout.

    `is_watched`: also until standard input ends, as it does when the process at its other end is gone.
    """

    def tell(progress: Progress) -> None:
        print(progress.to_line(), flush=True)  # noqa: T201 - a pipe to the process that watches this one

    with _stop_event() as stop:
        if is_watched:
            threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
        follow(settings, sink, stop, tell)


def run_stream(settings: Settings) -> None:
    """Keep both sinks at the end of the topics until SIGINT or SIGTERM.

    Serves Prometheus metrics on `METRICS_PORT`, loopback only. Harmless beside another one and beside drain runs.
    """
    metrics, reports = Metrics(), Reports()

    def heard(sink: str, progress: Progress) -> None:
        metrics.progressed(sink, progress)
        reports.progressed(sink, progress)

    server, serving = start_http_server(settings.metrics_port, addr=HOST, registry=metrics.registry)
    sinks = [SinkProcess(sink, heard) for sink in SINKS]
    with _stop_event() as stop:
        side = [
            threading.Thread(target=_measure, args=(settings, metrics, stop), name="lag"),
            threading.Thread(target=_report, args=(settings, reports, stop), name="reports"),
        ]
        for thread in side:
            thread.start()
        try:
            while not stop.wait(LOOK_S):
                for sink in sinks:
                    if sink.keep_up():
                        metrics.restarted(sink.sink)
                        log.warning("the process of sink %s had ended and was started again", sink.sink)
                    metrics.runs(sink.sink, is_up=sink.is_up)
        finally:
            stop.set()
            for sink in sinks:
                sink.stop()
            for thread in side:
                thread.join()
            server.shutdown()
            serving.join()


def _measure(settings: Settings, metrics: Metrics, stop: threading.Event) -> None:
    while not stop.is_set():
        for sink in SINKS:
            try:
                metrics.measured(sink, _lags(settings, sink))
            except StripePlatformError as error:
                log.warning("the lag of sink %s cannot be measured: %s", sink, error)
        stop.wait(MEASURED_EVERY_S)


def _lags(settings: Settings, sink: str) -> Mapping[str, Lag]:
    if sink == "raw":
        return raw_lag(settings)
    with connect(settings) as documents:
        return mongodb_lag(settings, documents, TABLES)


def _report(settings: Settings, reports: Reports, stop: threading.Event, at: Callable[[Point], None] = nowhere) -> None:
    with instance_of(settings) as instance:
        while True:
            is_last = stop.wait(REPORTS_LOOKED_AT_EVERY_S)
            for report in reports.due():
                at("reporting")
                instance.report_runless_asset_event(report)
                at("reported")
            if is_last:
                return


@contextmanager
def _stop_event() -> Iterator[threading.Event]:
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_at_end_of_input(stop: threading.Event) -> None:
    # Not by sys.stdin, whose lock this thread would still hold when the interpreter shuts down.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stop.set()
