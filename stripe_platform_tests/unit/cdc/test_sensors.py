"""The stream is reported on change, not too often, and a limit as soon as it is passed or kept again."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest

from stripe_platform.cdc import sensors
from stripe_platform.cdc.lag import LONGEST_UNREAD, MOST_UNREAD, Lag
from stripe_platform.cdc.observation import LONGEST_TRANSACTION, TopicState
from stripe_platform.cdc.sensors import REPORTED_EVERY, SLOT, TOPICS, Round, observe_stream
from stripe_platform.cdc.slot import Slot
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings

SLOT_READ = Slot(
    is_ready=True, is_read=True, wal_status="reserved", kept_bytes=100, unconfirmed_bytes=7, limit_bytes=10 * 1024**3
)
QUIET = Round(
    topics={table: TopicState("id-of-it", {0: 3}, {0: 10}, {0: 10}) for table in TABLES_BY_NAME},
    lags={table: Lag(0, 0.0) for table in TABLES_BY_NAME},
    open_seconds={},
    slot=SLOT_READ,
)
EVERY = REPORTED_EVERY.total_seconds()


def moved(seen: Round, table: str, to: int) -> Round:
    topic = replace(seen.topics[table], last_stable={0: to}, high_water={0: to})
    return replace(seen, topics={**seen.topics, table: topic})


Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation


class Ticks:
    """The sensor over time: what it sees, its cursor, and what each tick reports to an instance of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
        self.seen, self.now, self._cursor = QUIET, 1_000_000.0, None
        self.instance, self.skipped = instance, ""
        monkeypatch.setattr(sensors, "look", lambda _: self.seen)
        monkeypatch.setattr("stripe_platform.cdc.sensors.time.time", lambda: self.now)

    def tick(self) -> list[Event]:
        result = observe_stream(
            dg.build_sensor_context(self.instance, cursor=self._cursor, resources={"settings": Settings()})
        )
        assert isinstance(result, dg.SensorResult)
        self._cursor = result.cursor  # type: ignore[assignment]
        self.skipped = str(result.skip_reason.skip_message) if result.skip_reason else ""
        events: list[Event] = list(result.asset_events)
        for event in events:
            self.instance.report_runless_asset_event(event)
        return events

    def observed(self) -> list[str]:
        return [event.asset_key.path[-1] for event in self.tick() if isinstance(event, dg.AssetObservation)]

    def verdicts(self) -> list[tuple[str, str, bool, dg.AssetCheckSeverity]]:
        return [
            (event.asset_key.to_user_string(), event.check_name, event.passed, event.severity)
            for event in self.tick()
            if isinstance(event, dg.AssetCheckEvaluation)
        ]


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ticks]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Ticks(monkeypatch, instance)


def test_every_topic_is_reported_at_once_and_not_again_while_nothing_changes(ticks: Ticks) -> None:
    assert ticks.observed() == ["connector", *TABLES_BY_NAME]
    ticks.now += 10 * EVERY
    # What moves with the clock is no change.
    ticks.seen = replace(ticks.seen, slot=replace(SLOT_READ, kept_bytes=5_000, unconfirmed_bytes=0))
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
            replace(QUIET, slot=replace(SLOT_READ, kept_bytes=5 * 1024**3 + 1)),
            ("cdc/connector", "slot_is_below_its_limit", False, WARN),
        ),
        (
            replace(QUIET, slot=replace(SLOT_READ, wal_status="lost")),
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
        slot=replace(SLOT_READ, kept_bytes=5 * 1024**3),
    )
    assert ticks.verdicts() == []


@pytest.mark.parametrize(
    "slot", [None, replace(SLOT_READ, kept_bytes=10**12, limit_bytes=None)], ids=["none", "no limit"]
)
def test_a_slot_without_a_limit_passes_none(ticks: Ticks, slot: Slot | None) -> None:
    ticks.seen = replace(QUIET, slot=slot)
    assert ticks.verdicts() == []


def test_a_slot_that_is_no_longer_read_or_fills_up_is_observed_without_any_topic(ticks: Ticks) -> None:
    ticks.tick()
    ticks.seen = Round(slot=replace(SLOT_READ, is_read=False), unseen={TOPICS: "no broker"})
    ticks.now += EVERY
    assert ticks.observed() == ["connector"]
    ticks.now += EVERY
    assert ticks.observed() == []
    ticks.seen = Round(slot=replace(SLOT_READ, is_read=False, kept_bytes=2 * 1024**3), unseen={TOPICS: "no broker"})
    (report,) = ticks.tick()
    assert isinstance(report, dg.AssetObservation)
    assert report.metadata["slot_kept_bytes"].value == 2 * 1024**3
    assert "the topics cannot be seen: no broker" in ticks.skipped


def test_without_kafka_the_slot_is_still_judged_and_what_was_not_seen_is_not(ticks: Ticks) -> None:
    ticks.seen = replace(
        QUIET,
        lags={**QUIET.lags, "refunds": Lag(MOST_UNREAD + 1, 0.0)},
        open_seconds={"charges": LONGEST_TRANSACTION.total_seconds() + 1},
    )
    assert len(ticks.verdicts()) == 2
    ticks.seen = Round(slot=replace(SLOT_READ, kept_bytes=6 * 1024**3), unseen={TOPICS: "no broker"})
    assert ticks.verdicts() == [("cdc/connector", "slot_is_below_its_limit", False, WARN)]


def test_without_postgresql_the_topics_are_still_reported_and_the_slot_is_not_judged(ticks: Ticks) -> None:
    ticks.seen = replace(QUIET, slot=replace(SLOT_READ, wal_status="lost"))
    assert len(ticks.verdicts()) == 1
    ticks.seen = replace(moved(QUIET, "charges", 11), slot=None, unseen={SLOT: "no server"})
    ticks.now += EVERY
    (report,) = ticks.tick()
    assert isinstance(report, dg.AssetObservation)
    assert report.asset_key == dg.AssetKey(["cdc", "charges"])
    assert "slot_kept_bytes" not in report.metadata
    assert "the replication slot cannot be seen: no server" in ticks.skipped


LAG_OF_REFUNDS = dg.AssetCheckKey(dg.AssetKey(["raw", "refunds"]), "lag_is_below_its_limit")


def found_by_a_job(instance: dg.DagsterInstance, *, passed: bool) -> None:
    """The limit evaluated in a run, as by `data_quality`."""

    @dg.asset_check(asset=LAG_OF_REFUNDS.asset_key, name=LAG_OF_REFUNDS.name)
    def nightly() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed)

    job = dg.define_asset_job("nightly", selection=dg.AssetSelection.checks(nightly))
    defs = dg.Definitions(asset_checks=[nightly], jobs=[job])
    assert defs.resolve_job_def("nightly").execute_in_process(instance=instance).success


def test_a_limit_that_a_job_found_passed_is_reported_kept_by_the_next_tick(ticks: Ticks) -> None:
    ticks.tick()
    found_by_a_job(ticks.instance, passed=False)
    assert [(name, passed) for name, _, passed, _ in ticks.verdicts()] == [("raw/refunds", True)]
    assert ticks.verdicts() == []


def test_a_limit_that_a_job_has_reported_is_not_reported_again(ticks: Ticks) -> None:
    found_by_a_job(ticks.instance, passed=False)
    ticks.seen = replace(QUIET, lags={**QUIET.lags, "refunds": Lag(MOST_UNREAD + 1, 0.0)})
    assert ticks.verdicts() == []
    found_by_a_job(ticks.instance, passed=True)
    assert [(name, passed) for name, _, passed, _ in ticks.verdicts()] == [("raw/refunds", False)]


def test_a_check_that_a_run_planned_and_never_made_is_answered_by_the_next_tick(ticks: Ticks) -> None:
    @dg.asset_check(asset=LAG_OF_REFUNDS.asset_key, name=LAG_OF_REFUNDS.name)
    def nightly() -> dg.AssetCheckResult:
        raise RuntimeError

    job = dg.define_asset_job("nightly", selection=dg.AssetSelection.checks(nightly))
    defs = dg.Definitions(asset_checks=[nightly], jobs=[job])
    defs.resolve_job_def("nightly").execute_in_process(instance=ticks.instance, raise_on_error=False)
    assert [(name, passed) for name, _, passed, _ in ticks.verdicts()] == [("raw/refunds", True)]
    assert ticks.verdicts() == []


def test_a_warning_that_becomes_an_error_is_reported(ticks: Ticks) -> None:
    ticks.seen = replace(QUIET, slot=replace(SLOT_READ, kept_bytes=6 * 1024**3))
    assert [severity for *_, severity in ticks.verdicts()] == [WARN]
    ticks.seen = replace(QUIET, slot=replace(SLOT_READ, kept_bytes=6 * 1024**3, wal_status="lost"))
    assert [severity for *_, severity in ticks.verdicts()] == [ERROR]
    assert ticks.verdicts() == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stripe_platform.cdc.offsets.REQUEST_LIMIT", timedelta(seconds=1))


@pytest.mark.usefixtures("impatient")
def test_without_any_server_the_sensor_names_both_and_the_remedy() -> None:
    nowhere = Settings.model_validate({"kafka_port": 1, "postgres_port": 1, "postgres_password": "none"})
    result = observe_stream(dg.build_sensor_context(dg.DagsterInstance.ephemeral(), resources={"settings": nowhere}))
    assert isinstance(result, dg.SensorResult)
    assert not result.asset_events
    skipped = str(result.skip_reason)
    for part in ("Kafka at 127.0.0.1:1", "PostgreSQL at 127.0.0.1:1", "stripe-platform status"):
        assert part in skipped


@pytest.mark.usefixtures("impatient")
def test_kafka_s_silence_does_not_hide_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "slot_state", lambda _: SLOT_READ)
    seen = sensors.look(Settings(kafka_port=1))
    assert seen.slot == SLOT_READ
    assert list(seen.unseen) == [TOPICS]
