"""What Dagster is told of topics, lag and slot, which all live outside of it: on change, and not too often."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dagster as dg

from stripe_platform.cdc.lag import Lag
from stripe_platform.cdc.limit_checks import slot_result, stable_results
from stripe_platform.cdc.observation import TopicState, open_transactions, topic_states
from stripe_platform.cdc.slot import Slot, slot_state
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.lag import raw_lag
from stripe_platform.raw.lag_checks import lag_results
from stripe_platform.settings import Settings

# A report takes 4.4 KB of Dagster's storage for ever: of a busy topic some 460 MB in a year.
REPORTED_EVERY = timedelta(minutes=5)


@dataclass(frozen=True)
class Round:
    """One look at the whole stream; `open_seconds` are the ages of Kafka transactions that have not ended."""

    topics: Mapping[str, TopicState]
    lags: Mapping[str, Lag]
    open_seconds: Mapping[str, float]
    slot: Slot | None


def look(settings: Settings) -> Round:
    """Ask Kafka and PostgreSQL once; their errors as they come."""
    topics = topic_states(settings, [table.name for table in CAPTURED_TABLES])
    return Round(topics, raw_lag(settings), open_transactions(settings, topics), slot_state(settings))


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def observe_stream(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult | dg.SkipReason:
    """Report each topic that has moved, and each limit that was passed or kept again, without a run."""
    try:
        seen = look(settings)
    except StripePlatformError as error:
        return dg.SkipReason(f"the stream cannot be seen: {error}")
    reported = Reported.from_cursor(context.cursor)
    observations = list(reported.observations(seen, time.time()))
    evaluations = list(reported.changed_verdicts(seen))
    if not observations and not evaluations:
        return dg.SkipReason("nothing has changed that was not reported within the last 5 minutes")
    return dg.SensorResult(asset_events=[*observations, *evaluations], cursor=reported.to_cursor())


@dataclass
class Reported:
    """What was reported last: per table the state and when, and the checks that fail."""

    topics: dict[str, tuple[str, float]]
    failing: set[str]

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Reported":
        """What `to_cursor` wrote; nothing was reported before the first tick."""
        kept: dict[str, Any] = json.loads(cursor) if cursor else {"topics": {}, "failing": []}
        return cls({table: (state, at) for table, (state, at) in kept["topics"].items()}, set(kept["failing"]))

    def to_cursor(self) -> str:
        """A text for the sensor's cursor."""
        return json.dumps({"topics": self.topics, "failing": sorted(self.failing)}, sort_keys=True)

    def observations(self, seen: Round, now: float) -> Iterator[dg.AssetObservation]:
        """Of topics that are not as reported last, each at most once in `REPORTED_EVERY`; taken as reported."""
        for table, topic in seen.topics.items():
            begin = sum(topic.begin.values())
            # Not the slot and not the seconds: these move with the clock while nothing happens.
            state = f"{topic.data_version}:{begin}:{sum(topic.high_water.values())}:{seen.lags[table].messages}"
            before, at = self.topics.get(table, ("", 0.0))
            if state != before and now - at >= REPORTED_EVERY.total_seconds():
                self.topics[table] = (state, now)
                yield _observation(table, topic, seen)

    def changed_verdicts(self, seen: Round) -> Iterator[dg.AssetCheckEvaluation]:
        """Of limits that hold no longer or hold again; taken as reported."""
        for result in (*lag_results(seen.lags), *stable_results(seen.open_seconds), slot_result(seen.slot)):
            evaluation = _evaluation(result)
            name = evaluation.asset_check_key.to_user_string()
            if evaluation.passed == (name in self.failing):
                self.failing ^= {name}
                yield evaluation


def _observation(table: str, topic: TopicState, seen: Round) -> dg.AssetObservation:
    lag, slot = seen.lags[table], seen.slot
    return dg.AssetObservation(
        asset_key=["cdc", table],
        metadata={
            "begin_offsets": _as_text(topic.begin),
            "last_stable_offsets": _as_text(topic.last_stable),
            "high_water_offsets": _as_text(topic.high_water),
            "messages": topic.messages,
            "raw_lag_messages": lag.messages,
            "raw_lag_seconds": round(lag.seconds, 1),
            "slot_kept_bytes": slot.kept_bytes if slot else 0,
            "slot_unconfirmed_bytes": slot.unconfirmed_bytes if slot else 0,
        },
        tags={"dagster/data_version": topic.data_version},
    )


def _as_text(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in offsets.items()}


def _evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    if result.asset_key is None or result.check_name is None:
        raise dg.DagsterInvariantViolationError("a result of no check in particular cannot be reported")
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
    )
