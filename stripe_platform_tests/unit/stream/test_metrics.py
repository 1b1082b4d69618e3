from collections import Counter

from prometheus_client import generate_latest

from stripe_platform.cdc.lag import Lag
from stripe_platform.stream.metrics import Metrics
from stripe_platform.stream.progress import Progress


def test_prometheus_sees_what_was_committed_how_long_it_took_and_how_far_the_sinks_are_behind() -> None:
    metrics = Metrics()
    metrics.progressed("mongodb", Progress({"charges": 2, "refunds": 1}, stale=1, dead_letters=3, seconds=0.02))
    metrics.measured("mongodb", {"charges": Lag(7, 1.5), "refunds": Lag(1, 0.5)})
    metrics.runs("raw", is_up=True)
    metrics.restarted("raw")
    lines = set(generate_latest(metrics.registry).decode().splitlines())
    assert {
        'stripe_platform_changes_total{sink="mongodb",table="charges"} 2.0',
        'stripe_platform_stale_changes_total{sink="mongodb"} 1.0',
        'stripe_platform_dead_letters_total{sink="mongodb"} 3.0',
        'stripe_platform_batch_seconds_bucket{le="0.025",sink="mongodb"} 1.0',
        'stripe_platform_lag_messages{sink="mongodb"} 8.0',
        'stripe_platform_lag_seconds{sink="mongodb"} 1.5',
        'stripe_platform_sink_up{sink="raw"} 1.0',
        'stripe_platform_restarts_total{sink="raw"} 1.0',
    } <= lines


def test_a_line_of_progress_is_read_back_and_every_other_line_is_passed_over() -> None:
    progress = Progress({"charges": 2}, stale=1, dead_letters=0, seconds=0.5, written=Counter({"charges": 1}))
    assert Progress.from_line(progress.to_line()) == progress
    assert Progress.from_line("a warning of some library") is None
    assert Progress.from_line('{"other": 1}') is None
