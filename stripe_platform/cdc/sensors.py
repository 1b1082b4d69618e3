"""What Dagster is told of topics, lag and slot, which all live outside of it: on change, and not too often."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg

from stripe_platform.cdc.assets import CONNECTOR_KEY
from stripe_platform.cdc.lag import Lag
from stripe_platform.cdc.limit_checks import slot_result, stable_results
from stripe_platform.cdc.observation import TopicState, open_transactions, share_kept, topic_states
from stripe_platform.cdc.slot import Slot, slot_state
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.lag import raw_lag
from stripe_platform.raw.lag_checks import lag_results
from stripe_platform.settings import Settings

# A report takes 4.4 KB of Dagster's storage for ever: of a busy topic some 460 MB in a year.
REPORTED_EVERY = timedelta(minutes=5)
SLOT, TOPICS = "the replication slot", "the topics"


@dataclass(frozen=True)
class Round:
    """One look at the whole stream; `open_seconds` are the ages of Kafka transactions that have not ended.

    `unseen` says of `SLOT` and of `TOPICS` why it could not be looked at; what would be known of it is empty then.
    """

    topics: Mapping[str, TopicState] = field(default_factory=dict)
    lags: Mapping[str, Lag] = field(default_factory=dict)
    open_seconds: Mapping[str, float] = field(default_factory=dict)
    slot: Slot | None = None
    unseen: Mapping[str, str] = field(default_factory=dict)


def look(settings: Settings) -> Round:
    """Ask PostgreSQL and Kafka once, each whether the other answers or not: without Kafka the slot fills the disk."""
    seen: dict[str, Any] = {}
    unseen: dict[str, str] = {}
    try:
        seen["slot"] = slot_state(settings)
    except StripePlatformError as error:
        unseen[SLOT] = str(error)
    except psycopg.Error as error:
        unseen[SLOT] = f"PostgreSQL did not end its answer ({type(error).__name__})"
    try:
        topics = topic_states(settings, [table.name for table in CAPTURED_TABLES])
        seen |= {"topics": topics, "lags": raw_lag(settings), "open_seconds": open_transactions(settings, topics)}
    except StripePlatformError as error:
        unseen[TOPICS] = str(error)
    return Round(**seen, unseen=unseen)


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def observe_stream(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """Report each part that has moved, and each limit that was passed or kept again, without a run."""
    seen = look(settings)
    reported = Reported.from_cursor(context.cursor)
    events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation]
    events = [*reported.observations(seen, time.time()), *changed_verdicts(context.instance, seen)]
    skip = None
    if seen.unseen:
        skip = "; ".join(f"{part} cannot be seen: {why}" for part, why in seen.unseen.items())
    elif not events:
        skip = "nothing has changed that was not reported within the last 5 minutes"
    return dg.SensorResult(asset_events=events, skip_reason=skip, cursor=reported.to_cursor())


@dataclass
class Reported:
    """What was observed last: by topic's table, and by `SLOT`, the state and when."""

    parts: dict[str, tuple[str, float]]

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Reported":
        """What `to_cursor` wrote; nothing was reported before the first tick."""
        kept: dict[str, Any] = json.loads(cursor) if cursor else {}
        return cls({part: (state, at) for part, (state, at) in kept.get("parts", {}).items()})

    def to_cursor(self) -> str:
        """A text for the sensor's cursor."""
        return json.dumps({"parts": self.parts}, sort_keys=True)

    def observations(self, seen: Round, now: float) -> Iterator[dg.AssetObservation]:
        """Of parts that are not as reported last, each at most once in `REPORTED_EVERY`; taken as reported."""
        if SLOT not in seen.unseen and self._is_due(SLOT, _state_of_slot(seen.slot), now):
            described = seen.slot.describe() if seen.slot else "there is no slot"
            yield dg.AssetObservation(CONNECTOR_KEY, metadata={"slot": described, **_slot_bytes(seen)})
        for table, topic in seen.topics.items():
            begin = sum(topic.begin.values())
            # Not the slot and not the seconds: these move with the clock while nothing happens.
            state = f"{topic.data_version}:{begin}:{sum(topic.high_water.values())}:{seen.lags[table].messages}"
            if self._is_due(table, state, now):
                yield _observation(table, topic, seen)

    def _is_due(self, part: str, state: str, now: float) -> bool:
        before, at = self.parts.get(part, ("", 0.0))
        if state == before or now - at < REPORTED_EVERY.total_seconds():
            return False
        self.parts[part] = (state, now)
        return True


def changed_verdicts(instance: dg.DagsterInstance, seen: Round) -> Iterator[dg.AssetCheckEvaluation]:
    """Of limits that hold no longer, hold again or are passed further than Dagster's record of the check says.

    The record is the only memory: a check that a job has evaluated meanwhile is compared with what the job found.
    A limit that was never evaluated and holds is left to the first job.
    """
    evaluations = {evaluation.asset_check_key: evaluation for evaluation in map(_evaluation, _results(seen))}
    recorded = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(evaluations))
    for key, now in evaluations.items():
        record = recorded.get(key)
        if (not now.passed) if record is None else _differs(record.evaluation, now):
            yield now


def _differs(recorded: object, now: dg.AssetCheckEvaluation) -> bool:
    # A run that has planned the check, and recorded that, may end without a verdict: then this is the newest.
    if not isinstance(recorded, dg.AssetCheckEvaluation):
        return True
    return recorded.passed != now.passed or (not now.passed and recorded.severity != now.severity)


def _results(seen: Round) -> Iterable[dg.AssetCheckResult]:
    yield from lag_results(seen.lags)
    if TOPICS not in seen.unseen:
        yield from stable_results(seen.open_seconds)
    if SLOT not in seen.unseen:
        yield slot_result(seen.slot)


def _state_of_slot(slot: Slot | None) -> str:
    # Bytes move all the time: in tenths of what PostgreSQL keeps they are news.
    return f"{slot.is_ready}:{slot.is_read}:{slot.wal_status}:{int(share_kept(slot) * 10)}" if slot else "none"


def _slot_bytes(seen: Round) -> dict[str, int]:
    if SLOT in seen.unseen:
        return {}
    slot = seen.slot
    return {
        "slot_kept_bytes": slot.kept_bytes if slot else 0,
        "slot_unconfirmed_bytes": slot.unconfirmed_bytes if slot else 0,
    }


def _observation(table: str, topic: TopicState, seen: Round) -> dg.AssetObservation:
    lag = seen.lags[table]
    return dg.AssetObservation(
        asset_key=["cdc", table],
        metadata={
            "begin_offsets": _as_text(topic.begin),
            "last_stable_offsets": _as_text(topic.last_stable),
            "high_water_offsets": _as_text(topic.high_water),
            "messages": topic.messages,
            "raw_lag_messages": lag.messages,
            "raw_lag_seconds": round(lag.seconds, 1),
            **_slot_bytes(seen),
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
