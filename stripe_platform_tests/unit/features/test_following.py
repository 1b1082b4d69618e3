"""A drain that follows stays as long as changes come."""

from datetime import timedelta

from stripe_platform.features.following import BatchDone, until_quiet


def done(changes: int) -> BatchDone:
    return BatchDone({"charges": changes} if changes else {}, stale=0, dead_letters=0, seconds=0.1, written={})


def test_it_stays_until_no_change_has_come_for_so_long() -> None:
    now = 100.0
    follow = until_quiet(timedelta(seconds=5), clock=lambda: now)
    now = 104.9
    assert not follow.until()
    follow.told(done(changes=1))
    now = 109.8
    assert not follow.until()
    follow.told(done(changes=0))
    now = 109.9
    assert follow.until()
