"""A connector whose task has failed is set going again, with growing pauses."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from stripe_platform.cdc.connector import connector_state, restart_failed
from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings

FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=15)
# A task that has run for so long has got over its trouble.
RECOVERED_AFTER = timedelta(minutes=10)


@dataclass(frozen=True)
class Attempts:
    """How often the failed task was restarted since it last ran well, and when last, in UTC."""

    count: int = 0
    last: datetime | None = None

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Attempts":
        """What `to_cursor` wrote; none before the first tick."""
        if not cursor:
            return cls()
        kept = json.loads(cursor)
        return cls(kept["count"], datetime.fromisoformat(kept["last"]))

    def to_cursor(self) -> str:
        """A text for the sensor's cursor; empty when there was none."""
        return json.dumps({"count": self.count, "last": self.last.isoformat()}) if self.last else ""

    @property
    def pause(self) -> timedelta:
        """How long to wait after the last attempt: doubled with each, at most `LONGEST_PAUSE`."""
        doublings = min(16, max(0, self.count - 1))
        return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << doublings))

    def is_due(self, now: datetime) -> bool:
        """Whether the next attempt may be made."""
        return self.last is None or now - self.last >= self.pause

    def then_at(self, now: datetime) -> "Attempts":
        """One attempt more."""
        return Attempts(self.count + 1, now)

    def while_running(self, now: datetime) -> "Attempts":
        """None once the task has run long enough."""
        return Attempts() if self.last is None or now - self.last >= RECOVERED_AFTER else self


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def connector_watch(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SkipReason:
    """Connect never restarts a failed task by itself, and PostgreSQL keeps its log until somebody does.

    A paused or stopped connector is left alone: somebody meant it.
    """
    now = datetime.now(UTC)
    attempts = Attempts.from_cursor(context.cursor)
    try:
        state = connector_state(settings)
        if state.is_running:
            attempts = attempts.while_running(now)
        elif state.has_failed and attempts.is_due(now):
            restart_failed(settings)
            attempts = attempts.then_at(now)
            context.log.warning("restarted (attempt %d): %s", attempts.count, state.describe())
    except StripePlatformError as error:
        return dg.SkipReason(f"the connector cannot be seen: {error}")
    context.update_cursor(attempts.to_cursor())
    told = f", restarted {attempts.count} times, last at {attempts.last:%H:%M:%S} UTC" if attempts.last else ""
    return dg.SkipReason(f"{state.describe()}{told}")
