"""Draining up to wanted offsets goes by what is stored in the end, whoever stored it."""

from collections.abc import Iterator

import pytest

from stripe_platform.cdc.report import BoundsNotReached, DrainReport, TableDrained
from stripe_platform.raw import drain as drain_module
from stripe_platform.raw.drain import drain_up_to
from stripe_platform.settings import Settings

BOUNDS = {"charges": {0: 10}, "refunds": {0: 4}}


def drained(begin: int, end: int) -> DrainReport:
    """One drain that took charges from `begin` to `end`; refunds were complete before."""
    return DrainReport(
        {
            "charges": TableDrained(rows=end - begin, batches=1, begin={0: begin}, end={0: end}, lag=0),
            "refunds": TableDrained(rows=0, batches=0, begin={0: 4}, end={0: 4}, lag=0),
        },
        seconds=1.0,
    )


@pytest.fixture
def drains(monkeypatch: pytest.MonkeyPatch) -> list[DrainReport]:
    """What the next drains come to, to be filled by the test."""
    reports: list[DrainReport] = []

    def following() -> Iterator[DrainReport]:
        yield from reports

    following_reports = following()
    monkeypatch.setattr(drain_module, "drain", lambda *_, **__: next(following_reports))
    return reports


def test_bounds_that_another_drain_reached_meanwhile_are_reached(settings: Settings, drains: list[DrainReport]) -> None:
    drains += [drained(0, 6), drained(10, 10)]
    report = drain_up_to(settings, BOUNDS, BOUNDS)
    assert report.tables["charges"].end == {0: 10}
    assert report.rows == 6


def test_what_is_still_missing_is_told_as_of_the_last_drain(settings: Settings, drains: list[DrainReport]) -> None:
    drains += [drained(0, 2), drained(2, 6), drained(7, 7)]
    with pytest.raises(BoundsNotReached, match="charges by 3;"):
        drain_up_to(settings, BOUNDS, BOUNDS)
