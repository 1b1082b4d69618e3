"""When a failed connector is restarted again."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from stripe_platform.cdc.watch import FIRST_PAUSE, LONGEST_PAUSE, RECOVERED_AFTER, Attempts

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_first_failure_is_restarted_at_once() -> None:
    assert Attempts().is_due(NOW)


def test_pauses_double_up_to_the_longest() -> None:
    attempts, pauses = Attempts(), []
    for _ in range(8):
        attempts = attempts.then_at(NOW)
        pauses.append(attempts.pause)
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


@given(st.integers(1, 100_000))
def test_a_restart_waits_for_its_pause_and_not_longer(count: int) -> None:
    attempts = Attempts(count, NOW)
    assert not attempts.is_due(NOW + attempts.pause - timedelta(seconds=1))
    assert attempts.is_due(NOW + attempts.pause)


def test_a_task_that_runs_for_a_moment_keeps_its_attempts_and_loses_them_when_it_has_recovered() -> None:
    attempts = Attempts().then_at(NOW).then_at(NOW)
    assert attempts.while_running(NOW + timedelta(seconds=30)) == attempts
    assert attempts.while_running(NOW + RECOVERED_AFTER) == Attempts()


def test_the_cursor_keeps_what_was_tried() -> None:
    attempts = Attempts().then_at(NOW).then_at(NOW)
    assert Attempts.from_cursor(attempts.to_cursor()) == attempts
    assert Attempts.from_cursor(Attempts().to_cursor()) == Attempts.from_cursor(None) == Attempts()
