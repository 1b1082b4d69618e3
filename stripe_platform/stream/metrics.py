"""What Prometheus sees of the continuous mode."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stripe_platform.cdc.lag import Lag
from stripe_platform.stream.progress import Progress


class Metrics:
    """The metrics of one process, in a registry of their own; every one has the label `sink`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._changes = self._counter("changes", "Changes of captured tables that are committed.", "table")
        self._stale = self._counter("stale_changes", "Changes that came again, or too late, and changed nothing.")
        self._dead_letters = self._counter("dead_letters", "Records set aside because they could not be applied.")
        self._restarts = self._counter("restarts", "Times that the sink's process was started again.")
        self._seconds = Histogram(
            "stripe_platform_batch_seconds",
            "Seconds that a committed batch took.",
            ["sink"],
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self._lag_messages = self._gauge("lag_messages", "Offsets between the sink's own and the last stable one.")
        self._lag_seconds = self._gauge("lag_seconds", "Age of the oldest change that the sink has not taken.")
        self._up = self._gauge("sink_up", "1 while the sink's process runs.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"stripe_platform_{name}", text, ["sink", *labels], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"stripe_platform_{name}", text, ["sink", *labels], registry=self.registry)

    def progressed(self, sink: str, progress: Progress) -> None:
        """Count committed work."""
        for table, changes in progress.changes.items():
            self._changes.labels(sink, table).inc(changes)
        self._stale.labels(sink).inc(progress.stale)
        self._dead_letters.labels(sink).inc(progress.dead_letters)
        self._seconds.labels(sink).observe(progress.seconds)

    def measured(self, sink: str, lags: Mapping[str, Lag]) -> None:
        """Show the lag over all tables of the sink."""
        self._lag_messages.labels(sink).set(sum(lag.messages for lag in lags.values()))
        self._lag_seconds.labels(sink).set(max((lag.seconds for lag in lags.values()), default=0.0))

    def unmeasured(self, sink: str) -> None:
        """Show that the lag is not known now: the last one that was measured would look as if all were well."""
        for gauge in (self._lag_messages, self._lag_seconds):
            gauge.labels(sink).set(float("nan"))

    def runs(self, sink: str, *, is_up: bool) -> None:
        """Show whether the sink's process runs."""
        self._up.labels(sink).set(is_up)

    def restarted(self, sink: str) -> None:
        """Count a start of the sink's process after its first."""
        self._restarts.labels(sink).inc()
