"""Draining up to wanted offsets goes by what is stored in the end, whoever stored it."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from confluent_kafka import KafkaError
from pydantic import SecretStr

from stripe_platform.cdc.reader import Event
from stripe_platform.cdc.report import BoundsNotReached, DrainReport, TableDrained
from stripe_platform.cdc.topics import topic_for
from stripe_platform.oltp.catalog import Column
from stripe_platform.raw import drain as drain_module
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.raw.drain import drain, drain_up_to
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


class NeverAllAtTheirEnd:
    """Reads topics of which one or the other has always something new: a tombstone, which makes no row."""

    def __init__(self, *_: Any) -> None:
        self._offsets = {topic_for(table): count() for table in ("payouts", "merchants")}
        self._busy, self._quiet = self._offsets
        self._at = dict.fromkeys(self._offsets, -1)

    def __enter__(self) -> "NeverAllAtTheirEnd":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> list[Event]:
        self._busy, self._quiet = self._quiet, self._busy
        self._at[self._busy] = next(self._offsets[self._busy])
        end = KafkaError(KafkaError._PARTITION_EOF)
        return [
            Event(self._busy, 0, self._at[self._busy], None, None),
            Event(self._quiet, 0, self._at[self._quiet] + 1, None, end),
        ]

    def publish(self, _: Any) -> None:
        pass


def test_under_load_a_drain_ends_once_each_topic_has_been_at_its_end_and_commits_few_times(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ["payouts", "merchants"]
    id_ = Column("id", "uuid", nullable=False, precision=None, scale=None)
    monkeypatch.setattr(drain_module, "TopicReader", NeverAllAtTheirEnd)
    monkeypatch.setattr(drain_module, "topic_ids", lambda *_: dict.fromkeys(tables, "a"))
    monkeypatch.setattr(drain_module, "table_columns", lambda _: dict.fromkeys(tables, (id_,)))
    monkeypatch.setattr(drain_module, "last_stable_offsets", lambda _, of: {table: {0: 1} for table in of})
    settings, limit = settings.model_copy(update={"toast_placeholder": SecretStr("?")}), timedelta(seconds=5)
    report = drain(settings, tables, limit=limit)
    assert report.seconds < limit.total_seconds()
    assert all(drained.batches <= 2 for drained in report.tables.values())
    assert {table: drained.end for table, drained in report.tables.items()} == {
        table: next_offsets(settings, table) for table in tables
    }
