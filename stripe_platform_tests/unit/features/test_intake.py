"""Batches hold what was read and the offsets after it; a source knows when it has read enough."""

import json
from typing import Any

import pytest
from confluent_kafka import KafkaError

from stripe_platform.cdc import reader
from stripe_platform.cdc.reader import Event, TopicReader
from stripe_platform.cdc.topics import topic_for
from stripe_platform.errors import StripePlatformError
from stripe_platform.features import intake
from stripe_platform.features.decoder import Columns, TableDecoder
from stripe_platform.features.intake import Batch, Intake, Source, nowhere, read_now
from stripe_platform.oltp.catalog import Column

COLUMNS: Columns = (Column("id", "uuid", False, None, None), Column("amount", "int4", True, None, None))


def value(id: str, table: str = "balance_transactions") -> bytes:
    source = {"table": table, "ts_us": 1, "lsn": 1, "snapshot": "false"}
    return json.dumps({"op": "c", "after": {"id": id, "amount": 1}, "source": source}).encode()


def event(partition: int, offset: int, *, table: str = "balance_transactions", text: bytes | None = None) -> Event:
    return Event(topic_for(table), partition, offset, text or value(f"{partition}-{offset}", table), None)


def end(partition: int, offset: int, *, table: str = "balance_transactions") -> Event:
    return Event(topic_for(table), partition, offset, None, KafkaError(KafkaError._PARTITION_EOF))


def source(table: str = "balance_transactions", bounds: dict[int, int] | None = None, partitions: int = 2) -> Source:
    key_is_shown = (*COLUMNS, Column("created", "timestamptz", True, None, None))
    decoder = TableDecoder(table, key_is_shown, kinds={}, placeholder="left out", ask=lambda: COLUMNS)
    return Source(decoder, "a", dict.fromkeys(range(partitions), 0), bounds or {})


class Topics(TopicReader):
    """What was read, in portions as the test gives them; nothing afterwards."""

    def __init__(self, *portions: list[Event]) -> None:
        self.portions = list(portions)
        self.stopped: list[str] = []

    def read(self) -> list[Event]:
        return self.portions.pop(0) if self.portions else []

    def stop(self, table: str) -> None:
        self.stopped.append(table)


def batches(*portions: list[Event], of: dict[str, Source] | None = None) -> list[Batch]:
    topics = Topics(*portions)
    reading = Intake(topics, of or {topic_for("reviews"): source("reviews", partitions=1)}, nowhere)
    found = []
    while topics.portions:
        found.append(reading.next_batch())
    return found


def review(offset: int) -> Event:
    return event(0, offset, table="reviews")


def test_a_source_is_caught_up_at_the_end_of_every_partition_and_past_every_bound() -> None:
    reading = source(bounds={1: 5})
    reading.reach_end(end(0, 0))
    reading.reach_end(end(1, 3))
    assert not reading.is_caught_up
    reading.take(event(1, 4))
    assert not reading.is_caught_up
    reading.reach_end(end(1, 5))
    assert reading.is_caught_up
    reading.take(event(0, 0))
    assert not reading.is_caught_up


@pytest.mark.parametrize(
    ("payouts", "invoices", "reviews", "first"),
    [
        pytest.param(5_000, 5_000, 0, ["payouts"], id="a backlog of all"),
        pytest.param(10, 5_000, 5_000, ["invoices"], id="a backlog of later ones"),
        pytest.param(5_000, 10, 0, ["payouts", "invoices", "reviews"], id="few that wait"),
        pytest.param(10, 5_000, 10, ["payouts", "invoices", "reviews"], id="few to wait for"),
    ],
)
def test_of_a_backlog_what_makes_documents_whole_at_once_is_read_first(
    payouts: int, invoices: int, reviews: int, first: list[str]
) -> None:
    bounds = {"payouts": payouts, "invoices": invoices, "reviews": reviews}
    sources = {topic_for(table): source(table, bounds={0: bound}) for table, bound in bounds.items()}
    found = read_now(sources, (("payouts", "currencies"), ("invoices",)))
    assert [each.table for each in found.values()] == first


def test_a_batch_holds_changes_letters_and_the_offsets_after_them() -> None:
    (batch,) = batches([review(0), event(0, 1, table="reviews", text=b"bad"), review(3), end(0, 6, table="reviews")])
    assert [(change.offset, change.row["id"]) for change in batch.changes] == [(0, "0-0"), (3, "0-3")]
    assert [(letter.id, letter.reason) for letter in batch.letters] == [("a/0/1", "not valid JSON")]
    assert batch.moved["reviews"].next == {0: 6}
    assert batch.is_last


def test_bounds_are_reached_though_more_comes_and_the_end_is_not() -> None:
    reading = {topic_for("reviews"): source("reviews", bounds={0: 2}, partitions=1)}
    first, second = batches([review(0)], [review(1), review(2)], of=reading)
    assert (first.is_at_bounds, first.is_last) == (False, False)
    assert (second.is_at_bounds, second.is_last) == (True, False)


def test_markers_move_the_offsets_and_nothing_moves_nothing() -> None:
    marked, nothing = batches([end(0, 2, table="reviews")], [end(0, 2, table="reviews")])
    assert (marked.changes, marked.moved["reviews"].next) == ([], {0: 2})
    assert nothing.moved == {}


def test_a_batch_ends_when_nothing_waits_and_before_it_grows_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MESSAGES_AT_ONCE", 2)
    monkeypatch.setattr(intake, "MOST_RECORDS", 4)
    full = [[review(offset), review(offset + 1)] for offset in (0, 2, 4)]
    sizes = [len(batch.changes) for batch in batches(*full, [review(6)], [review(7)])]
    assert sizes == [4, 3, 1]
    monkeypatch.setattr(intake, "MOST_BYTES", 1)
    assert [len(batch.changes) for batch in batches(*full)] == [2, 2, 2]


def test_a_table_that_stops_keeps_its_offsets_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(StripePlatformError):
        pass

    def stop(*_: Any) -> None:
        raise Stopped

    reviews, payouts = source("reviews", partitions=1), source("payouts", partitions=1)
    monkeypatch.setattr(reviews.decoder, "decode", stop)
    topics = Topics([review(0), event(0, 0, table="payouts")], [review(1), event(0, 1, table="payouts")])
    reading = Intake(topics, {topic_for("reviews"): reviews, topic_for("payouts"): payouts}, nowhere)
    first, second = reading.next_batch(), reading.next_batch()
    assert isinstance(first.errors["reviews"], Stopped)
    assert topics.stopped == ["reviews"]
    assert (set(first.moved), set(second.moved), second.errors) == ({"payouts"}, {"payouts"}, {})


def test_changes_that_are_refused_later_become_letters_and_the_others_stay() -> None:
    (batch,) = batches([review(0), review(1), review(2)])
    without = batch.without([(batch.changes[2], "for another"), (batch.changes[0], "for a reason")])
    assert [change.offset for change in without.changes] == [1]
    assert [(letter.id, letter.reason) for letter in without.letters] == [
        ("a/0/0", "for a reason"),
        ("a/0/2", "for another"),
    ]
    assert without.moved == batch.moved
