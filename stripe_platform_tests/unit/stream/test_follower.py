import threading
from typing import Any

import pytest

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.stream import follower
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
        if (left.pop(0) if left else "fails") == "fails":
            raise StripePlatformError("no broker")
        tell(Progress({"charges": 1}))

    return drain


def test_a_drain_that_fails_is_begun_again_after_pauses_that_double_to_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follower, "SINKS", {"raw": failing()})
    stop = Stop(after=7)
    follower.follow(Settings(), "raw", stop, lambda _: None)
    assert stop.waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_drain_that_succeeds_ends_the_growth_of_the_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "SINKS", {"raw": failing("fails", "fails", "succeeds")})
    stop, heard = Stop(after=3), list[Progress]()
    follower.follow(Settings(), "raw", stop, heard.append)
    assert stop.waits == [1, 2, 1]
    assert heard == [Progress({"charges": 1})]


def test_an_error_that_nobody_raised_on_purpose_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(follower, "SINKS", {"raw": broken})
    with pytest.raises(ZeroDivisionError):
        follower.follow(Settings(), "raw", threading.Event(), lambda _: None)
