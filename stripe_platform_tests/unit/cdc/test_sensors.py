"""The stream is reported on change, not too often, and a limit as soon as it is passed or kept again."""

from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest

from stripe_platform.cdc import sensors
from stripe_platform.cdc.lag import LONGEST_UNREAD, MOST_UNREAD, Lag
from stripe_platform.cdc.observation import LONGEST_TRANSACTION, TopicState
from stripe_platform.cdc.sensors import REPORTED_EVERY, Round, observe_stream
from stripe_platform.cdc.slot import Slot
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings

SLOT = Slot(
    is_ready=True, is_read=True, wal_status="reserved", kept_bytes=100, unconfirmed_bytes=7, limit_bytes=10 * 1024**3
)
QUIET = Round(
    topics={table: TopicState("id-of-it", {0: 3}, {0: 10}, {0: 10}) for table in TABLES_BY_NAME},
    lags={table: Lag(0, 0.0) for table in TABLES_BY_NAME},
    open_seconds={},
    slot=SLOT,
)
EVERY = REPORTED_EVERY.total_seconds()


def moved(seen: Round, table: str, to: int) -> Round:
    topic = replace(seen.topics[table], last_stable={0: to}, high_water={0: to})
    return replace(seen, topics={**seen.topics, table: topic})


class Ticks:
    """The sensor over time: what it sees, its cursor, and what each tick reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen, self.now, self._cursor = QUIET, 1_000_000.0, None
        monkeypatch.setattr(sensors, "look", lambda _: self.seen)
        monkeypatch.setattr("stripe_platform.cdc.sensors.time.time", lambda: self.now)

    def tick(self) -> list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        result = observe_stream(dg.build_sensor_context(cursor=self._cursor, resources={"settings": Settings()}))
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, dg.SensorResult)
        self._cursor = result.cursor  # type: ignore[assignment]
        return list(result.asset_events)

    def observed(self) -> list[str]:
        return [event.asset_key.path[-1] for event in self.tick() if isinstance(event, dg.AssetObservation)]

    def verdicts(self) -> list[tuple[str, str, bool, dg.AssetCheckSeverity]]:
        return [
            (event.asset_key.to_user_string(), event.check_name, event.passed, event.severity)
            for event in self.tick()
            if isinstance(event, dg.AssetCheckEvaluation)
        ]


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    return Ticks(monkeypatch)


def test_every_topic_is_reported_at_once_and_not_again_while_nothing_changes(ticks: Ticks) -> None:
    assert ticks.observed() == list(TABLES_BY_NAME)
    ticks.now += 10 * EVERY
    # What moves with the clock is no change.
    ticks.seen = replace(ticks.seen, slot=replace(SLOT, kept_bytes=5_000, unconfirmed_bytes=0))
    assert ticks.observed() == []


def test_a_topic_that_moves_is_reported_alone_and_once_in_five_minutes(ticks: Ticks) -> None:
    ticks.tick()
    ticks.seen = moved(ticks.seen, "charges", 11)
    ticks.now += EVERY - 1
    assert ticks.observed() == []
    ticks.now += 1
    assert ticks.observed() == ["charges"]
    ticks.seen = moved(ticks.seen, "charges", 12)
    ticks.now += 30
    assert ticks.observed() == []
    ticks.now += EVERY
    assert ticks.observed() == ["charges"]
    assert ticks.observed() == []


@pytest.mark.parametrize(
    "changed",
    [
        replace(QUIET.topics["charges"], begin={0: 4}),
        replace(QUIET.topics["charges"], high_water={0: 12}),
        replace(QUIET.topics["charges"], topic_id="another"),
    ],
    ids=["retention", "an open transaction", "recreated"],
)
def test_any_other_state_of_a_topic_is_a_change(ticks: Ticks, changed: TopicState) -> None:
    ticks.tick()
    ticks.now += EVERY
    ticks.seen = replace(QUIET, topics={**QUIET.topics, "charges": changed})
    assert ticks.observed() == ["charges"]


def test_a_lag_that_was_drained_is_a_change(ticks: Ticks) -> None:
    ticks.seen = replace(QUIET, lags={**QUIET.lags, "refunds": Lag(7, 2.0)})
    ticks.tick()
    ticks.now += EVERY
    ticks.seen = QUIET
    assert ticks.observed() == ["refunds"]


def test_a_report_holds_offsets_lag_slot_and_the_data_version(ticks: Ticks) -> None:
    topic = TopicState("id-of-it", {0: 1, 1: 2}, {0: 10, 1: 20}, {0: 11, 1: 20})
    ticks.seen = replace(
        QUIET, topics={**QUIET.topics, "charges": topic}, lags={**QUIET.lags, "charges": Lag(12, 3.456)}
    )
    (report,) = [event for event in ticks.tick() if event.asset_key == dg.AssetKey(["cdc", "charges"])]
    assert isinstance(report, dg.AssetObservation)
    assert report.tags["dagster/data_version"] == "id-of-it:30"
    assert {name: value.value for name, value in report.metadata.items()} == {
        "begin_offsets": {"0": 1, "1": 2},
        "last_stable_offsets": {"0": 10, "1": 20},
        "high_water_offsets": {"0": 11, "1": 20},
        "messages": 27,
        "raw_lag_messages": 12,
        "raw_lag_seconds": 3.5,
        "slot_kept_bytes": 100,
        "slot_unconfirmed_bytes": 7,
    }


ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@pytest.mark.parametrize(
    ("bad", "failing"),
    [
        (
            replace(QUIET, lags={**QUIET.lags, "refunds": Lag(MOST_UNREAD + 1, 0.0)}),
            ("raw/refunds", "lag_is_below_its_limit", False, ERROR),
        ),
        (
            replace(QUIET, lags={**QUIET.lags, "refunds": Lag(1, LONGEST_UNREAD.total_seconds() + 1)}),
            ("raw/refunds", "lag_is_below_its_limit", False, ERROR),
        ),
        (
            replace(QUIET, open_seconds={"charges": LONGEST_TRANSACTION.total_seconds() + 1}),
            ("cdc/charges", "last_stable_offset_moves", False, ERROR),
        ),
        (
            replace(QUIET, slot=replace(SLOT, kept_bytes=5 * 1024**3 + 1)),
            ("cdc/connector", "slot_is_below_its_limit", False, WARN),
        ),
        (
            replace(QUIET, slot=replace(SLOT, wal_status="lost")),
            ("cdc/connector", "slot_is_below_its_limit", False, ERROR),
        ),
    ],
    ids=["many unread", "long unread", "hung transaction", "half of the slot", "lost"],
)
def test_a_limit_is_reported_at_once_when_it_is_passed_and_when_it_is_kept_again(
    ticks: Ticks, bad: Round, failing: tuple[str, str, bool, dg.AssetCheckSeverity]
) -> None:
    assert ticks.verdicts() == []
    ticks.seen = bad
    assert ticks.verdicts() == [failing]
    assert ticks.verdicts() == []
    ticks.seen = QUIET
    asset, check, _, _ = failing
    assert [(name, of, passed) for name, of, passed, _ in ticks.verdicts()] == [(asset, check, True)]
    assert ticks.verdicts() == []


def test_what_is_at_its_limit_passes(ticks: Ticks) -> None:
    ticks.seen = replace(
        QUIET,
        lags={**QUIET.lags, "refunds": Lag(MOST_UNREAD, LONGEST_UNREAD.total_seconds())},
        open_seconds={"charges": LONGEST_TRANSACTION.total_seconds()},
        slot=replace(SLOT, kept_bytes=5 * 1024**3),
    )
    assert ticks.verdicts() == []


@pytest.mark.parametrize("slot", [None, replace(SLOT, kept_bytes=10**12, limit_bytes=None)], ids=["none", "no limit"])
def test_a_slot_without_a_limit_passes_none(ticks: Ticks, slot: Slot | None) -> None:
    ticks.seen = replace(QUIET, slot=slot)
    assert ticks.verdicts() == []


def test_without_a_broker_the_sensor_skips_and_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stripe_platform.cdc.offsets.REQUEST_LIMIT", timedelta(seconds=1))
    nowhere = Settings(kafka_port=1)
    skip = observe_stream(dg.build_sensor_context(resources={"settings": nowhere}))
    assert isinstance(skip, dg.SkipReason)
    assert "127.0.0.1:1" in (skip.skip_message or "")
