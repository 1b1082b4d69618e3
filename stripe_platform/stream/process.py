"""The process of one sink: started, heard, started again after it ended, and stopped."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from stripe_platform.stream.progress import Progress

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# One that ran for so long had got over its trouble.
SETTLED_AFTER_S = 60.0
STOP_LIMIT_S = 20.0


class SinkProcess:
    """`stripe-platform stream --sink NAME` as a child, whose progress `heard` is told of in a thread of its own.

    The child ends when its standard input does, so that none outlives the process that watches it.
    """

    def __init__(self, sink: str, heard: Callable[[str, Progress], None]) -> None:
        self.sink = sink
        self._heard = heard
        self._process: subprocess.Popen[str] | None = None
        self._ear: threading.Thread | None = None
        self._started_at = 0.0
        self._pause = FIRST_PAUSE_S
        self._next_start = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the child runs now."""
        return self._process is not None and self._process.poll() is None

    def keep_up(self) -> bool:
        """Start the child unless it runs or its pause is not over; whether it was started *again*."""
        if self.is_up:
            return False
        is_again = self._process is not None
        now = time.monotonic()
        if is_again and self._next_start <= self._started_at:
            settled = now - self._started_at > SETTLED_AFTER_S
            self._pause = FIRST_PAUSE_S if settled else min(2 * self._pause, LONGEST_PAUSE_S)
            self._next_start = now + self._pause
        if now < self._next_start:
            return False
        self._start(now)
        return is_again

    def _start(self, now: float) -> None:
        self._close()
        self._started_at = now
        self._process = subprocess.Popen(
            _command(self.sink),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ear = threading.Thread(target=self._listen, args=(self._process,), name=f"{self.sink}-progress")
        self._ear.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if progress := Progress.from_line(line):
                self._heard(self.sink, progress)

    def ask_to_stop(self) -> None:
        """Have the child end what it is at."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def end_by(self, deadline: float) -> None:
        """Wait for the end of the child; by force from this time of the monotonic clock on."""
        if self._process is not None:
            try:
                self._process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._ear is not None:
            self._ear.join()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()


def stop_all(sinks: Sequence[SinkProcess]) -> None:
    """Have all children end what they are at, and wait for them; by force 20 s after they were asked."""
    for sink in sinks:
        sink.ask_to_stop()
    deadline = time.monotonic() + STOP_LIMIT_S
    for sink in sinks:
        sink.end_by(deadline)


def _command(sink: str) -> list[str]:
    return [sys.executable, "-m", "stripe_platform.cli", "stream", "--sink", sink, "--watched"]
