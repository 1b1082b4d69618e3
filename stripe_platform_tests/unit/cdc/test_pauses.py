"""After failed drains a table is left alone for longer and longer, until its log has come further."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from stripe_platform.cdc.pauses import FailedDrain, Pause, pause_of

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
STORED = {"merchants": {0: 5}, "charges": {0: 5, 1: 7}}


def next_offsets(table: str) -> Mapping[int, int]:
    return STORED[table]


def failed(minutes: float = 0, stopped: Mapping[str, str] | None = None, **bounds: dict[int, int]) -> FailedDrain:
    return FailedDrain("0123456789", NOON + timedelta(minutes=minutes), bounds or {"merchants": {0: 9}}, stopped or {})


STOPPED = {"merchants": "SchemaChanged"}


def test_a_table_that_never_failed_is_not_paused() -> None:
    assert pause_of("merchants", [], next_offsets) is None


def test_a_table_that_stopped_is_paused_with_its_reason_and_the_others_are_not() -> None:
    drains = [failed(stopped=STOPPED, merchants={0: 9}, charges={0: 9})]
    assert pause_of("merchants", drains, next_offsets) == Pause(
        NOON + timedelta(seconds=30), "SchemaChanged, see run 01234567"
    )
    assert pause_of("charges", drains, next_offsets) is None


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 600), (7, 600), (720, 600)]
)
def test_the_pause_doubles_with_each_failure_up_to_ten_minutes_from_the_last(failures: int, seconds: int) -> None:
    drains = [failed(-number, STOPPED) for number in range(failures)]
    pause = pause_of("merchants", drains, next_offsets)
    assert pause is not None
    assert pause.until == NOON + timedelta(seconds=seconds)


def test_failures_before_the_log_came_to_their_bounds_count_no_more() -> None:
    drains = [failed(0, STOPPED, merchants={0: 9}), failed(-1, STOPPED, merchants={0: 5}), failed(-2, STOPPED)]
    drains[2] = failed(-2, STOPPED, merchants={0: 3})
    pause = pause_of("merchants", drains, next_offsets)
    assert pause is not None
    assert pause.until == NOON + timedelta(seconds=30)
    assert pause_of("merchants", drains[1:], next_offsets) is None


def test_a_drain_that_failed_as_a_whole_pauses_every_table_until_its_bounds_are_reached() -> None:
    pause = pause_of("charges", [failed()], next_offsets)
    assert pause == Pause(NOON + timedelta(seconds=30), "the drain failed, see run 01234567")
    assert pause_of("charges", [failed(merchants={0: 5})], next_offsets) is None
