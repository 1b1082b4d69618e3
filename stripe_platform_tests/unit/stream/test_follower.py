import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stripe_platform.cdc.report import DrainReport, TableDrained, TablesStopped
from stripe_platform.errors import StripePlatformError
from stripe_platform.raw.drain import FLUSH_ROWS
from stripe_platform.settings import Settings
from stripe_platform.stream import follower
from stripe_platform.stream.follower import RAW_EVERY_S, RAW_LIMIT
from stripe_platform.stream.progress import Progress


class Stop(threading.Event):
    """Ends the following after so many waits, and keeps how long each was to be."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._after = after

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if len(self.waits) == self._after:
            self.set()
        return self.is_set()


def failing(*outcomes: str) -> Any:
    left = list(outcomes)

    def drain(settings: Settings, stop: threading.Event, tell: Any) -> None:
        outcome = left.pop(0) if left else "fails"
        if outcome != "fails":
            tell(Progress({"charges": 1}))
        if outcome != "succeeds":
            raise StripePlatformError("no broker")

    return drain


def drained(rows: int = 5, lag: int = 0, seconds: float = 1.0) -> DrainReport:
    return DrainReport({"charges": TableDrained(rows, 1, begin={0: 0}, end={0: rows}, lag=lag)}, seconds)


def followed(monkeypatch: pytest.MonkeyPatch, sink: str, drains: list[Any], stop: Stop) -> list[Progress]:
    """What is told of the sink's drains, which come to these reports or errors; the last one again and again."""
    begun = iter(range(10))

    def drain(*_: Any, **__: Any) -> DrainReport:
        assert next(begun, None) is not None, "it drains without a pause"
        outcome = drains.pop(0) if len(drains) > 1 else drains[0]
        if isinstance(outcome, TablesStopped):
            raise outcome
        assert isinstance(outcome, DrainReport)
        return outcome

    @contextmanager
    def open_store(_: Settings) -> Iterator[None]:
        yield None

    monkeypatch.setattr(follower, "drain_raw", drain)
    monkeypatch.setattr(follower, "drain_documents", drain)
    monkeypatch.setattr(follower, "open_store", open_store)
    heard: list[Progress] = []
    follower.follow(Settings(), sink, stop, heard.append)
    return heard


def test_a_drain_that_fails_is_begun_again_after_pauses_that_double_to_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follower, "SINKS", {"raw": failing()})
    stop = Stop(after=7)
    follower.follow(Settings(), "raw", stop, lambda _: None)
    assert stop.waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("outcome", ["succeeds", "commits and fails"])
def test_changes_that_are_committed_end_the_growth_of_the_pauses(monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    monkeypatch.setattr(follower, "SINKS", {"raw": failing("fails", "fails", outcome)})
    stop, heard = Stop(after=4), list[Progress]()
    follower.follow(Settings(), "raw", stop, heard.append)
    assert stop.waits == [1, 2, 1, 2]
    assert heard == [Progress({"charges": 1})]


def test_an_error_that_nobody_raised_on_purpose_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(follower, "SINKS", {"raw": broken})
    with pytest.raises(ZeroDivisionError):
        follower.follow(Settings(), "raw", threading.Event(), lambda _: None)


STOPPED = {"refunds": StripePlatformError("its column was dropped")}


def test_a_table_that_stopped_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop(after=1)
    drains: list[Any] = [TablesStopped(drained(), STOPPED)] * 3
    # With nothing that can go on, there is something to wait for.
    drains.append(TablesStopped(DrainReport({}, 0.1), STOPPED))
    followed(monkeypatch, "mongodb", drains, stop)
    assert (drains, stop.waits) == (drains[-1:], [1])


def test_of_the_lake_is_told_although_a_table_stopped_and_its_pace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop(after=2)
    heard = followed(monkeypatch, "raw", [TablesStopped(drained(rows=3), STOPPED)], stop)
    assert heard == [Progress({"charges": 3}, seconds=1.0)] * 2
    assert stop.waits == [RAW_EVERY_S] * 2


@pytest.mark.parametrize(
    "report", [drained(lag=FLUSH_ROWS), drained(seconds=RAW_LIMIT.total_seconds() + 0.1)], ids=["much left", "no time"]
)
def test_after_a_backlog_the_next_drain_into_the_lake_begins_at_once(
    monkeypatch: pytest.MonkeyPatch, report: DrainReport
) -> None:
    stop = Stop(after=1)
    assert len(followed(monkeypatch, "raw", [report, report, drained()], stop)) == 3


def test_under_steady_load_the_lake_is_committed_to_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop(after=3)
    assert len(followed(monkeypatch, "raw", [drained(lag=FLUSH_ROWS - 1)], stop)) == 3
    assert stop.waits == [10.0] * 3
