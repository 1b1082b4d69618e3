from dataclasses import replace

import pytest

from stripe_platform.cdc.connector import FAILED, NOT_REGISTERED, POSITION_GONE, RUNNING, ConnectorState
from stripe_platform.cdc.slot import Slot
from stripe_platform.doctor.finding import State
from stripe_platform.doctor.stream import KEPT_WARNING_BYTES, judge_connector, judge_slot, judge_snapshots, judge_topics

OK, WARNING, PROBLEM = State.OK, State.WARNING, State.PROBLEM


@pytest.mark.parametrize(
    ("connector", "tasks", "state"),
    [
        (RUNNING, (RUNNING,), OK),
        (NOT_REGISTERED, (), PROBLEM),
        (FAILED, (RUNNING,), PROBLEM),
        (RUNNING, (FAILED,), PROBLEM),
        ("PAUSED", ("PAUSED",), PROBLEM),
        (RUNNING, (), WARNING),
        ("UNASSIGNED", ("UNASSIGNED",), WARNING),
    ],
)
def test_the_connector_is_judged_by_connects_words(connector: str, tasks: tuple[str, ...], state: State) -> None:
    failure = "org.postgresql: no" if FAILED in (connector, *tasks) else None
    finding = judge_connector(ConnectorState("payments", connector, tasks, failure))
    assert finding.state is state
    assert failure is None or failure in finding.found
    assert state is not PROBLEM or "stripe-platform up" in (finding.remedy or "")


READ = Slot(is_ready=True, is_read=True, wal_status="reserved", kept_bytes=10, unconfirmed_bytes=5)


@pytest.mark.parametrize(
    ("slot", "state"),
    [
        (READ, OK),
        (None, PROBLEM),
        (replace(READ, is_read=False), PROBLEM),
        (replace(READ, is_ready=False, is_read=False), WARNING),
        (replace(READ, wal_status="unreserved"), WARNING),
        (replace(READ, kept_bytes=KEPT_WARNING_BYTES), OK),
        (replace(READ, kept_bytes=KEPT_WARNING_BYTES + 1), WARNING),
    ],
    ids=["read", "none", "unread", "waits", "unreserved", "at limit", "much kept"],
)
def test_a_slot_is_read_and_keeps_little(slot: Slot | None, state: State) -> None:
    assert judge_slot(slot).state is state


@pytest.mark.parametrize("slot", [None, replace(READ, is_read=False)], ids=["none", "made again"])
def test_a_connector_that_cannot_read_on_is_recovered_from_and_no_data_are_removed_for_it(slot: Slot | None) -> None:
    finding = judge_slot(slot, "there is no replication slot any more")
    assert (finding.state, finding.found) == (PROBLEM, "there is no replication slot any more")
    assert "`stripe-platform recover`" in (finding.remedy or "")
    gone = judge_connector(ConnectorState("payments", RUNNING, (FAILED,), POSITION_GONE))
    assert (gone.state, gone.remedy) == (PROBLEM, finding.remedy)


@pytest.mark.parametrize(
    ("found", "state", "part"),
    [
        ({"a": 2, "b": 1}, OK, "2"),
        ({"a": 2, "b": None}, PROBLEM, "missing: b"),
        ({"a": 3, "b": 1}, PROBLEM, "a has 3 partitions, declared 2"),
        ({"a": 3, "b": None}, PROBLEM, "a has 3 partitions, declared 2"),
    ],
)
def test_every_declared_topic_has_its_partitions(found: dict[str, int | None], state: State, part: str) -> None:
    finding = judge_topics(found, {"a": 2, "b": 1})
    assert (finding.state, part in finding.found) == (state, True)


def test_a_table_that_is_not_taken_is_named() -> None:
    assert judge_snapshots(()).state is OK
    finding = judge_snapshots(("charges", "refunds"))
    assert (finding.state, "charges, refunds" in finding.found) == (WARNING, True)


def test_of_tables_that_are_not_taken_those_that_lost_changes_come_first() -> None:
    finding = judge_snapshots(("charges", "refunds"), ("refunds",))
    assert (finding.state, "refunds" in finding.found, "charges" in finding.found) == (PROBLEM, True, False)
    assert "`stripe-platform recover`" in (finding.remedy or "")
