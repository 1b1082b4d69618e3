"""A drain that follows stays as long as changes come."""

from datetime import timedelta

from stripe_platform.features.following import Silence

QUIET = timedelta(seconds=5)


def test_silence_lasts_from_the_last_change() -> None:
    now = 100.0
    silence = Silence(clock=lambda: now)
    now = 104.9
    assert not silence.has_lasted(QUIET)
    silence.begin()
    now = 109.8
    assert not silence.has_lasted(QUIET)
    now = 109.9
    assert silence.has_lasted(QUIET)


def test_without_a_length_no_silence_is_long_enough() -> None:
    now = 0.0
    silence = Silence(clock=lambda: now)
    now = 1e9
    assert not silence.has_lasted(None)
