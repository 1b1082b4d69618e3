"""The continuous mode: a process per sink, watched; their lag measured; metrics served; Dagster told."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.stream.follower import SINKS, follow
from stripe_platform.stream.metrics import Metrics
from stripe_platform.stream.process import SinkProcess, stop_all
from stripe_platform.stream.progress import Progress
from stripe_platform.stream.reports import Reports
from stripe_platform.stream.watching import measure, report

HOST = "127.0.0.1"
LOOK_S = 0.5
# Builds wait minutes for the raw change log, readers a second for documents: where both want the processor, it waits.
IN_NO_HURRY = ("raw",)
NICENESS = 10
BESIDE_LIMIT_S = 2.0

log = logging.getLogger(__name__)


class MetricsPortTaken(StripePlatformError):
    """The port of the metrics cannot be opened."""

    def __init__(self, port: int, failure: OSError) -> None:
        super().__init__(
            f"the metrics cannot be served on {HOST}:{port}: {failure.strerror}; if another `stripe-platform stream` "
            "runs (see `stripe-platform status`), it does this one's work; else set METRICS_PORT to a free port"
        )


def run_sink(settings: Settings, sink: str, *, is_watched: bool = False) -> None:
    """Follow the topics with one sink until SIGINT or SIGTERM; progress goes to stdout.

    `is_watched`: also until standard input ends, as it does when the process at its other end is gone.
    """

    def tell(progress: Progress) -> None:
        print(progress.to_line(), flush=True)  # noqa: T201 - a pipe to the process that watches this one

    if sink in IN_NO_HURRY:
        os.nice(NICENESS)
    with _stop_event() as stop:
        if is_watched:
            threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
        follow(settings, sink, stop, tell)


def run_stream(settings: Settings) -> None:
    """Keep both sinks at the end of the topics until SIGINT or SIGTERM.

    Serves Prometheus metrics on `METRICS_PORT`, loopback only; `MetricsPortTaken`. Harmless beside another one and
    beside drain runs.
    """
    metrics, reports = Metrics(), Reports()

    def heard(sink: str, progress: Progress) -> None:
        metrics.progressed(sink, progress)
        reports.progressed(sink, progress)

    sinks = [SinkProcess(sink, heard) for sink in SINKS]
    with _stop_event() as stop, _served(settings, metrics):
        # Not waited for without end: they may be amid a question to a server that is away.
        beside = [
            threading.Thread(target=measure, args=(settings, metrics, stop), name="lag", daemon=True),
            threading.Thread(target=report, args=(settings, reports, stop), name="reports", daemon=True),
        ]
        for thread in beside:
            thread.start()
        try:
            while not stop.wait(LOOK_S):
                _keep_up(sinks, metrics)
        finally:
            stop.set()
            stop_all(sinks)
            for thread in beside:
                thread.join(BESIDE_LIMIT_S)


def _keep_up(sinks: Iterable[SinkProcess], metrics: Metrics) -> None:
    for sink in sinks:
        if sink.keep_up():
            metrics.restarted(sink.sink)
            log.warning("the process of sink %s had ended and was started again", sink.sink)
        metrics.runs(sink.sink, is_up=sink.is_up)


@contextmanager
def _served(settings: Settings, metrics: Metrics) -> Iterator[None]:
    try:
        server, serving = start_http_server(settings.metrics_port, addr=HOST, registry=metrics.registry)
    except OSError as failure:
        raise MetricsPortTaken(settings.metrics_port, failure) from failure
    try:
        yield
    finally:
        server.shutdown()
        serving.join()


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
