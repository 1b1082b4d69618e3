"""From the topics into MongoDB, on a real Kafka, PostgreSQL and mongod: every change once, the bad ones kept aside."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import AutoReconnect
from typer.testing import CliRunner

from stripe_platform.cdc import reader
from stripe_platform.cdc.broker import BrokerUnavailable, TopicMissing, admin
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.offsets import beginning_offsets, topic_ids
from stripe_platform.cdc.reader import OffsetsOutOfRange
from stripe_platform.cdc.report import TablesStopped
from stripe_platform.cdc.topics import ensure_topics, topic_for
from stripe_platform.features import dead_letters, intake, transaction
from stripe_platform.features import drain as drain_module
from stripe_platform.features.changes import TRUNCATE
from stripe_platform.features.columns import NEEDED, ColumnsMissing
from stripe_platform.features.decoder import ColumnsDiffer
from stripe_platform.features.drain import SINK, drain, drain_up_to
from stripe_platform.features.following import Follow
from stripe_platform.features.intake import Point
from stripe_platform.features.lag import mongodb_lag
from stripe_platform.features.offsets import TopicRecreated, stored_offsets
from stripe_platform.features.projection import Store
from stripe_platform.features.replay import OTHER_TOPIC, replay
from stripe_platform.features.sink import FeatureProjector
from stripe_platform.features.transaction import StoreFailed, writing
from stripe_platform.local.environment import environment
from stripe_platform.local.errors import NotEnoughDisk
from stripe_platform.local.mongodb import MONGODB
from stripe_platform.local.stack import server_states
from stripe_platform.local.supervisor import Supervisor
from stripe_platform.oltp.connection import connect
from stripe_platform.settings import Settings
from stripe_platform_tests.integration import plain_projector
from stripe_platform_tests.integration.topic_records import Record, created, produce, raw, record, transactions, write

LIMIT_SECONDS = 60
HISTORY = "payment_intents"


@pytest.fixture(scope="module")
def platform(new_platform: Callable[[], Settings]) -> Settings:
    """A stack of its own: these tests write into topics and break some."""
    return new_platform()


@pytest.fixture
def new_store(platform: Settings) -> Iterator[Callable[..., Store]]:
    """Makes stores: empty ones, which begin at offset 0 of every topic, or another writer's on the same database."""
    client: MongoClient[dict[str, Any]] = MongoClient(
        platform.mongodb_host, platform.mongodb_port, directConnection=True, serverSelectionTimeoutMS=2_000
    )
    with client, ExitStack() as opened:

        def make(name: str | None = None) -> Store:
            documents = client[name or f"test_{uuid4().hex}"]
            session = opened.enter_context(writing(platform, documents))
            opened.callback(client.drop_database, documents.name)
            return Store(documents, plain_projector, session)

        yield make


@pytest.fixture
def store(new_store: Callable[..., Store]) -> Store:
    return new_store()


def rows(store: Store, table: str) -> dict[str, Any]:
    """{id: row} of the documents that are not deleted."""
    return {found["_id"]: found["row"] for found in store.documents[table].find({"deleted": False})}


def letters(store: Store, table: str = HISTORY, since: int = 0) -> dict[int, str]:
    """{offset: reason} of a table's letters from this offset on."""
    listed = [letter for letter in dead_letters.listed(store.documents) if letter.table == table]
    return {letter.offset: letter.reason for letter in listed if letter.offset >= since}


def next_offsets(store: Store, table: str) -> dict[int, int]:
    return stored_offsets(store.documents).next_offsets([table])[table]


def everything(store: Store) -> dict[str, Any]:
    """All that is stored, without the times and the count of transactions."""
    kept: dict[str, Any] = {
        name: sorted(store.documents[name].find(), key=lambda found: str(found["_id"]))
        for name in store.documents.list_collection_names()
        if name != transaction.WRITERS
    }
    for letter in kept.get(dead_letters.COLLECTION, ()):
        del letter["seen_at"]
    for sink in kept["sink"]:
        del sink["version"], sink["begun_at"]
    return kept


def new_id(partition: int = 0) -> str:
    """An id whose records lie in this one of four partitions."""
    return str(UUID(int=uuid4().int // 4 * 4 + partition))


def test_changes_of_postgresql_come_through_the_connector_as_documents(platform: Settings, store: Store) -> None:
    with connect(platform) as postgres:
        ((id, created),) = postgres.execute(
            "INSERT INTO payments.merchants (business_name, mcc, country, default_currency, metadata) "
            "VALUES ('of a test', '5411', 'DE', 'eur', %s) RETURNING id::text, created",
            (json.dumps({"$x": "$y", "a.b": 9007199254740993}),),
        ).fetchall()
    cut = make_cut(platform, timeout=timedelta(seconds=LIMIT_SECONDS))
    report = drain_up_to(platform, ["merchants", "exchange_rates"], cut.offsets, store=store)
    row = rows(store, "merchants")[id]
    assert row["metadata"] == {"$x": "$y", "a.b": 9007199254740993}
    assert row["created"] == int(created.timestamp()) * 1_000_000 + created.microsecond
    assert "statement_descriptor" in row
    rates = list(rows(store, "exchange_rates").values())
    assert report.applied == report.rows >= len(rates) > 0
    assert report.lag == 0
    assert {type(rate["day"]) for rate in rates} == {int}
    assert {type(rate["rate"]) for rate in rates} == {str}


def test_draining_again_writes_nothing_and_no_lag_is_left(platform: Settings, store: Store) -> None:
    produce(platform, *[created("payouts") for _ in range(10)])
    assert mongodb_lag(platform, store.documents, ["payouts"])["payouts"].messages >= 11
    assert drain(platform, ["payouts"], store=store).rows >= 10
    before = everything(store)
    again = drain(platform, ["payouts"], store=store)
    assert (again.rows, again.lag, again.moved) == (0, 0, False)
    assert everything(store) == before
    # Markers of transactions do not count for ever.
    assert mongodb_lag(platform, store.documents, ["payouts"])["payouts"].messages == 0


def test_a_drain_that_follows_ends_when_nothing_has_come_for_a_while(platform: Settings, store: Store) -> None:
    produce(platform, *[created("payouts") for _ in range(5)])
    told: list[int] = []
    follow = Follow(told=lambda done: told.append(done.changes.get("payouts", 0)), quiet=timedelta(seconds=1))
    report = drain(platform, ["payouts"], store=store, follow=follow, limit=timedelta(seconds=LIMIT_SECONDS))
    assert report.rows == sum(told) >= 5
    assert report.lag == 0
    assert 1 <= report.seconds < LIMIT_SECONDS


def test_markers_alone_move_the_offsets(platform: Settings, store: Store) -> None:
    drain(platform, ["payouts"], store=store)
    (before,) = next_offsets(store, "payouts").values()
    with transactions(platform) as producer:
        write(producer, [created("payouts")], committed=False)
    report = drain(platform, ["payouts"], store=store)
    assert (report.rows, next_offsets(store, "payouts")) == (0, {0: before + 2})


def test_the_offsets_are_published_for_people_to_look_at(platform: Settings, store: Store) -> None:
    produce(platform, created("payouts"))
    drain(platform, ["payouts"], store=store)
    consumer = Consumer({"bootstrap.servers": platform.kafka_bootstrap, "group.id": SINK.group})
    try:
        (place,) = consumer.committed([TopicPartition(topic_for("payouts"), 0)], timeout=10)
    finally:
        consumer.close()
    assert {0: place.offset} == next_offsets(store, "payouts")


def test_what_is_to_be_refreshed_before_a_batch_is_refreshed_and_the_batch_applied_once(
    platform: Settings, store: Store
) -> None:
    id = str(uuid4())
    produce(platform, created("payouts", id, metadata='{"refresh": "one"}'))
    produce(platform, created("payouts", metadata='{"refresh": "two"}'))
    report = drain(platform, ["payouts"], store=store)
    assert {found["_id"] for found in store.documents["refreshed"].find()} == {"one", "two"}
    assert id in rows(store, "payouts")
    assert report.stale == 0


# Killed.

POINTS: tuple[Point, ...] = ("polled", "decoded", "in_transaction", "committing", "committed")


def history(chance: random.Random) -> list[list[Record]]:
    """Transactions on few rows: inserts, updates, deletes, rows that come back, records that are no change."""
    ids = [str(UUID(int=chance.getrandbits(128))) for _ in range(40)]
    lsn = 0
    made = []
    for _ in range(60):
        transaction: list[Record] = []
        for _ in range(chance.randint(1, 30)):
            lsn += 1
            id, op = chance.choice(ids), chance.choice("ccuuuudr")
            row: dict[str, Any] = {"id": id}
            if op != "d":
                row |= {"amount": lsn, "metadata": json.dumps({"n": lsn})}
            transaction.append(record(HISTORY, op, row, lsn=None if op == "r" else lsn))
        if chance.random() < 0.2:
            transaction.append(raw(HISTORY, b"no change", partition=chance.randrange(4)))
        made.append(transaction)
    return made


@pytest.fixture(params=[1, 2], ids=lambda seed: f"seed {seed}")
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)  # noqa: S311


def test_a_drain_killed_at_every_point_leaves_the_documents_of_an_undisturbed_one(
    platform: Settings, new_store: Callable[..., Store], chance: random.Random
) -> None:
    with transactions(platform) as producer:
        for number, transaction_ in enumerate(history(chance)):
            write(producer, transaction_, committed=number % 7 != 3)
    undisturbed, killed = new_store(), new_store()
    drain(platform, [HISTORY], store=undisturbed)
    assert len(letters(undisturbed)) >= 5
    drain_and_die(platform, killed, [(point, chance.randint(1, 4)) for point in chance.sample(POINTS, len(POINTS))])
    assert next_offsets(killed, HISTORY) != next_offsets(undisturbed, HISTORY)
    # These are passed only when all is read.
    drain_and_die(platform, killed, [("publishing", 1), ("published", 1)])
    drain(platform, [HISTORY], store=killed)
    assert everything(killed) == everything(undisturbed)


def drain_and_die(settings: Settings, store: Store, deaths: list[tuple[Point, int]]) -> None:
    """One drain after the other, each killed when it passes its point for the given time."""
    drains = subprocess.run(
        [sys.executable, "-c", DRAIN_AND_DIE, store.documents.name, json.dumps(deaths)],
        env=os.environ | environment(settings),
        timeout=2 * LIMIT_SECONDS,
        check=False,
        capture_output=True,
        text=True,
    )
    assert drains.stdout.split() == [str(-signal.SIGKILL)] * len(deaths), drains.stderr


# Forked before there is a thread or a connection: what is imported is imported once.
DRAIN_AND_DIE = """
import json, os, signal, sys
from pymongo import MongoClient
from stripe_platform.cdc import reader
from stripe_platform.features import intake
from stripe_platform.features.drain import drain
from stripe_platform.features.projection import Store
from stripe_platform.features.transaction import writing
from stripe_platform.settings import load_settings
from stripe_platform_tests.integration import plain_projector

reader.MESSAGES_AT_ONCE = 20
intake.MOST_RECORDS = 40
settings = load_settings()

def drain_and_die(last, times):
    passed = []

    def at(point):
        passed.append(point)
        if passed.count(last) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    documents = MongoClient(settings.mongodb_host, settings.mongodb_port, directConnection=True)[sys.argv[1]]
    with writing(settings, documents) as session:
        drain(settings, ["payment_intents"], store=Store(documents, plain_projector, session), at=at)

for last, times in json.loads(sys.argv[2]):
    child = os.fork()
    if child == 0:
        drain_and_die(last, times)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


# Beside another, and with a store that fails.


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MESSAGES_AT_ONCE", 20)
    monkeypatch.setattr(intake, "MOST_RECORDS", 40)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The readers that drains opened: a drain that lost a race opens another one."""
    readers: list[object] = []

    class Counted(reader.TopicReader):
        def __init__(self, *arguments: Any) -> None:
            readers.append(self)
            super().__init__(*arguments)

    monkeypatch.setattr(drain_module, "TopicReader", Counted)
    return readers


@pytest.mark.usefixtures("small_batches")
def test_of_two_drains_at_once_one_begins_again_and_every_change_is_applied_once(
    platform: Settings, new_store: Callable[..., Store], opened: list[object]
) -> None:
    store = new_store()
    beside = new_store(store.documents.name)
    drain(platform, [HISTORY], store=store)
    opened.clear()
    ids = [str(uuid4()) for _ in range(300)]
    produce(platform, *[created(HISTORY, id) for id in ids])
    is_inside, has_read = threading.Event(), threading.Event()

    def first(point: Point) -> None:
        if point == "committing" and not is_inside.is_set():
            is_inside.set()
            assert has_read.wait(LIMIT_SECONDS)

    def second(point: Point) -> None:
        if point == "decoded":
            has_read.set()

    with ThreadPoolExecutor() as pool:
        one = pool.submit(drain, platform, [HISTORY], store=store, at=first)
        assert is_inside.wait(LIMIT_SECONDS)
        other = pool.submit(drain, platform, [HISTORY], store=beside, at=second)
        reports = [one.result(), other.result()]
    assert len(opened) > 2
    assert sum(report.rows for report in reports) == len(ids)
    assert sum(report.stale for report in reports) == 0
    assert rows(store, HISTORY).keys() >= set(ids)


@pytest.mark.usefixtures("small_batches")
def test_a_writer_that_comes_ends_the_transaction_of_one_that_was_killed_and_delays_one_that_lives(
    platform: Settings, new_store: Callable[..., Store]
) -> None:
    store = new_store()
    at_end(platform, store, HISTORY)
    ids = [str(uuid4()) for _ in range(100)]
    produce(platform, *[created(HISTORY, id) for id in ids])
    drain_and_die(platform, store, [("committing", 1)])
    lives = new_store(store.documents.name)
    came: list[Store] = []

    def at(point: Point) -> None:
        if point == "committing" and not came:
            came.append(new_store(store.documents.name))

    began = time.monotonic()
    report = drain(platform, [HISTORY], store=lives, at=at)
    # Not the minute for which the server would have kept the transaction.
    assert time.monotonic() - began < transaction.TRANSACTION_LIMIT.total_seconds() / 2
    assert (report.rows, report.stale) == (len(ids), 0)


@pytest.mark.parametrize("label", ["UnknownTransactionCommitResult", "TransientTransactionError"])
def test_a_commit_whose_answer_is_lost_counts_once(
    platform: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    drain(platform, ["payouts"], store=store)
    version = stored_offsets(store.documents).version
    lost: list[str] = []
    commit = ClientSession.commit_transaction

    def commit_and_lose_the_answer(session: ClientSession) -> None:
        commit(session)
        if not lost:
            lost.append(label)
            failure = AutoReconnect("the answer was lost")
            failure._add_error_label(label)
            raise failure

    monkeypatch.setattr(ClientSession, "commit_transaction", commit_and_lose_the_answer)
    id = str(uuid4())
    produce(platform, created("payouts", id))
    points: list[Point] = []
    drain(platform, ["payouts"], store=store, at=points.append)
    assert lost == [label]
    # The commit without an answer is the first of them, or was noticed as a lost race.
    unnoticed = 0 if label == "UnknownTransactionCommitResult" else 1
    assert stored_offsets(store.documents).version == version + points.count("committed") + unnoticed
    assert id in rows(store, "payouts")


@pytest.mark.usefixtures("small_batches")
def test_a_mongod_that_is_killed_and_comes_back_is_waited_for(platform: Settings, store: Store) -> None:
    drain(platform, [HISTORY], store=store)
    ids = [str(uuid4()) for _ in range(200)]
    produce(platform, *[created(HISTORY, id) for id in ids])
    killed: list[int] = []

    def at(point: Point) -> None:
        if point == "committing" and not killed:
            (pid,) = (state.pid for state in server_states(platform) if state.name == "mongodb" and state.pid)
            killed.append(pid)
            psutil.Process(pid).kill()

    report = drain(platform, [HISTORY], store=store, at=at)
    assert killed
    assert rows(store, HISTORY).keys() >= set(ids)
    assert (report.rows, report.stale, report.lag) == (len(ids), 0, 0)


def test_without_mongodb_the_drain_fails_by_name_within_its_limit_and_goes_on_afterwards(
    platform: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "TRANSACTION_LIMIT", timedelta(seconds=1))
    drain(platform, ["payouts"], store=store)
    id = str(uuid4())
    produce(platform, created("payouts", id))
    supervisor = Supervisor(platform)

    def at(point: Point) -> None:
        if point == "decoded":
            supervisor.stop("mongodb")

    told = rf"MongoDB at {platform.mongodb_host}:{platform.mongodb_port}: \w+.*stripe-platform up"
    try:
        with pytest.raises(StoreFailed, match=told):
            drain(platform, ["payouts"], store=store, at=at)
        with pytest.raises(StoreFailed, match=told):
            mongodb_lag(platform, store.documents, ["payouts"])
    finally:
        supervisor.start("mongodb")
        wait_until(lambda: MONGODB.why_not_ready(platform) is None, "MongoDB answers")
    drain(platform, ["payouts"], store=store)
    assert id in rows(store, "payouts")


def test_below_the_limit_of_free_space_nothing_is_written(platform: Settings, store: Store) -> None:
    begin = at_end(platform, store, "payouts")
    produce(platform, created("payouts"))
    full = platform.model_copy(update={"least_free_bytes": 2**60})
    with pytest.raises(NotEnoughDisk):
        drain(full, ["payouts"], store=store)
    assert next_offsets(store, "payouts") == {0: begin}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    waiting = threading.Event()
    for _ in range(LIMIT_SECONDS * 10):
        if condition():
            return
        waiting.wait(0.1)
    raise AssertionError(f"not within {LIMIT_SECONDS} s: {what}")


# Records that cannot become documents.


def at_end(platform: Settings, store: Store, *tables: str) -> int:
    """Drain the tables; the next offset of the first one's partition 0."""
    drain(platform, tables, store=store)
    return next_offsets(store, tables[0])[0]


def test_each_bad_record_is_a_dead_letter_and_the_others_go_on(platform: Settings, store: Store) -> None:
    begin = at_end(platform, store, "refunds", "payouts")
    good, refund = str(uuid4()), str(uuid4())
    typed = created("refunds", amount="4242424242424242")
    unprojectable = created("refunds", metadata='{"refuse": true}')
    produce(
        platform,
        created("refunds", refund),
        raw("refunds", b"4242424242424242"),
        raw("refunds", b'{"op": "c"}'),
        typed,
        raw("refunds", created("refunds")[2].replace(b'"c"', b'"x"')),
        raw("refunds", b'{"op": "t", "source": {"table": "refunds", "ts_us": 1, "lsn": 1, "snapshot": "false"}}'),
        unprojectable,
        created("refunds", metadata="{"),
        created("refunds", good),
        created("payouts", good),
    )
    report = drain(platform, ["refunds", "payouts"], store=store)
    assert letters(store, "refunds", since=begin) == {
        begin + 1: "not a JSON object",
        begin + 2: "after is missing",
        begin + 3: "after.amount is not of type int64",
        begin + 4: "op is missing or none of c, u, d, r, t",
        begin + 5: TRUNCATE,
        begin + 6: "it asks to be refused",
        begin + 7: "metadata is not JSON, or nested too deep",
    }
    assert rows(store, "refunds").keys() >= {refund, good}
    assert good in rows(store, "payouts")
    assert report.dead_letters == 7
    listed = list(dead_letters.listed(store.documents))
    assert dead_letters.untriaged(store.documents) == len(listed)
    (kept,) = [letter for letter in listed if (letter.table, letter.offset) == ("refunds", begin + 6)]
    event = dead_letters.event_of(store.documents, kept, topic_for("refunds"))
    assert (event.key, event.value, event.headers) == (unprojectable[3], unprojectable[2], [("test", b"\x00\xff")])
    # Read once more, they are the same letters.
    store.documents["sink"].delete_one({})
    drain(platform, ["refunds", "payouts"], store=store)
    assert list(dead_letters.listed(store.documents)) == listed


def test_a_record_of_17_mb_is_a_dead_letter_byte_for_byte(platform: Settings, store: Store) -> None:
    begin = at_end(platform, store, "reviews")
    # Random digits: compressed they are half as long, which is more than a part holds.
    digits = random.Random(1).randbytes(17 * 1024 * 1024 // 2).hex()  # noqa: S311
    small, large = ({"id": str(uuid4()), "opened_reason": reason} for reason in ("rule", digits))
    value = record("reviews", "c", large, lsn=1)[2]
    produce(platform, raw("reviews", value), record("reviews", "c", small, lsn=2))
    report = drain(platform, ["reviews"], store=store)
    assert (report.applied, small["id"] in rows(store, "reviews")) == (1, True)
    (letter,) = [letter for letter in dead_letters.listed(store.documents) if letter.offset == begin]
    assert (letter.reason, letter.size, letter.parts) == ("its document is too large", len(value), 2)
    assert dead_letters.event_of(store.documents, letter, topic_for("reviews")).value == value


def test_when_the_dead_letters_cannot_be_written_nothing_advances(platform: Settings, store: Store) -> None:
    begin = at_end(platform, store, "refunds")
    id = str(uuid4())
    produce(platform, created("refunds", id), raw("refunds", b"4242424242424242"))
    refuse_all = {"$jsonSchema": {"required": ["what no letter has"]}}
    store.documents.command("collMod", dead_letters.COLLECTION, validator=refuse_all)
    with pytest.raises(StoreFailed, match=r"BulkWriteError \(code 121\)") as failed:
        drain(platform, ["refunds"], store=store)
    assert "4242" not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    assert (next_offsets(store, "refunds"), letters(store, "refunds", since=begin)) == ({0: begin}, {})
    assert id not in rows(store, "refunds")
    store.documents.command("collMod", dead_letters.COLLECTION, validator={})
    drain(platform, ["refunds"], store=store)
    assert id in rows(store, "refunds")
    assert letters(store, "refunds", since=begin) == {begin + 1: "not a JSON object"}


def test_a_replay_after_the_mending_applies_the_letter_at_its_own_place(
    platform: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_end(platform, store, "refunds")
    for letter in dead_letters.listed(store.documents):
        dead_letters.triage(store.documents, letter.id, "of another test")
    alone, overtaken = str(uuid4()), str(uuid4())
    refused = '{"refuse": true}'
    produce(
        platform,
        created("refunds", alone, metadata=refused),
        created("refunds", overtaken, metadata=refused),
        record("refunds", "u", {"id": overtaken, "amount": 6}, lsn=2),
        raw("refunds", b"4242424242424242"),
    )
    drain(platform, ["refunds"], store=store)
    waiting = [letter for letter in dead_letters.listed(store.documents) if letter.note is None]
    assert len(waiting) == 3
    ids = [letter.id for letter in waiting]
    still = replay(platform, store, ids)
    assert (still.applied, still.stale, set(still.refused)) == (0, 1, {ids[0], ids[2]})
    offsets, version = next_offsets(store, "refunds"), stored_offsets(store.documents).version

    monkeypatch.setattr(plain_projector, "Unprojectable", AssertionError)
    monkeypatch.setattr(plain_projector, "_document", mended(plain_projector._document))
    again = replay(platform, store, [ids[0], ids[2]])
    assert (again.applied, again.stale) == (1, 0)
    assert again.refused == {ids[2]: "not a JSON object"}
    assert rows(store, "refunds")[alone]["metadata"] == {"refuse": False}
    assert rows(store, "refunds")[overtaken]["amount"] == 6
    assert [letter.id for letter in dead_letters.listed(store.documents) if letter.note is None] == [ids[2]]
    assert store.documents[dead_letters.PARTS].count_documents({"_id": {"$regex": f"^{re.escape(ids[0])}/"}}) == 0
    # Its own transaction is one of the store's; the offsets stand.
    assert next_offsets(store, "refunds") == offsets
    assert stored_offsets(store.documents).version == version + 1


def mended(document: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def made(change: Any, before: Any) -> dict[str, Any]:
        if change.row.get("metadata"):
            change.row["metadata"]["refuse"] = False
        return document(change, before)

    return made


def test_a_replay_beside_a_drain_lets_one_of_both_begin_again(
    platform: Settings, new_store: Callable[..., Store], opened: list[object]
) -> None:
    store = new_store()
    beside = new_store(store.documents.name)
    at_end(platform, store, "payouts")
    produce(platform, raw("payouts", b"not JSON"))
    drain(platform, ["payouts"], store=store)
    id = str(uuid4())
    produce(platform, created("payouts", id))
    opened.clear()

    def at(point: Point) -> None:
        if point == "decoded" and len(opened) == 1:
            replay(platform, beside)

    report = drain(platform, ["payouts"], store=store, at=at)
    assert len(opened) == 2
    assert (report.rows, report.stale, id in rows(store, "payouts")) == (1, 0, True)


def test_a_letter_that_was_triaged_is_kept_and_counts_no_more(
    platform: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_end(platform, store, "payouts")
    produce(platform, raw("payouts", b"4242424242424242"))
    drain(platform, ["payouts"], store=store)
    count = len(letters(store, "payouts"))
    run = commands(platform, store, monkeypatch)
    listed = run("list")
    assert listed.count("payouts") >= count
    assert "not a JSON object" in listed
    assert "4242" not in listed
    for letter in list(dead_letters.listed(store.documents)):
        run("triage", letter.id, "--note", "a test wrote it")
    assert dead_letters.untriaged(store.documents) == 0
    assert len(letters(store, "payouts")) == count
    assert "a test wrote it" in run("list")
    assert "still refused" in run("replay", exit_code=1)
    assert "no dead letter has the id 'nobody'" in run("triage", "nobody", "--note", "x", exit_code=1)


def commands(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `stripe-platform dead-letters …` on this store."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    from stripe_platform import cli

    monkeypatch.setattr(cli, "load_settings", lambda: settings)
    wired = SimpleNamespace(
        open_store=lambda _: nullcontext(store), open_documents=lambda _: nullcontext(store.documents)
    )
    monkeypatch.setitem(sys.modules, "stripe_platform.features.sink", wired)

    def run(*arguments: str, exit_code: int = 0) -> str:
        result = CliRunner().invoke(cli.app, ["dead-letters", *arguments], env={"COLUMNS": "250"})
        assert result.exit_code == exit_code, result.output
        return result.output

    return run


# From here on each test breaks a table or a topic that no other test uses.


def alter(settings: Settings, statement: str, table: str = "disputes") -> None:
    with connect(settings) as postgres:
        postgres.execute(f"ALTER TABLE payments.{table} {statement}")


def test_a_column_that_comes_is_followed_one_that_goes_is_absent_and_another_type_stops_its_table(
    platform: Settings, store: Store
) -> None:
    before, after, late, typed, other = (str(uuid4()) for _ in range(5))
    produce(platform, created("disputes", before))
    is_added: list[Point] = []

    def at(point: Point) -> None:
        # The definition was read already.
        if not is_added:
            is_added.append(point)
            alter(platform, "ADD COLUMN priority integer")
            produce(platform, created("disputes", after, priority=3))

    drain(platform, ["disputes"], store=store, at=at)
    drain(platform, ["disputes"], store=store)
    assert rows(store, "disputes")[after]["priority"] == 3

    alter(platform, "DROP COLUMN priority")
    produce(platform, created("disputes", late, priority=4))
    drain(platform, ["disputes"], store=store)
    assert "priority" not in rows(store, "disputes")[late]
    assert letters(store, "disputes") == {}

    alter(platform, "ADD COLUMN priority text")
    produce(platform, created("disputes", typed, priority="high"), created("payouts", other))
    stored = next_offsets(store, "disputes")
    with pytest.raises(TablesStopped, match="priority was integer and is text") as stopped:
        drain(platform, ["disputes", "payouts"], store=store)
    assert isinstance(stopped.value.errors["disputes"], ColumnsDiffer)
    assert next_offsets(store, "disputes") == stored
    assert other in rows(store, "payouts")


def test_a_needed_column_that_is_renamed_stops_its_table_alone(platform: Settings, store: Store) -> None:
    store = Store(store.documents, FeatureProjector(), store.session)
    card = dict.fromkeys(NEEDED["card_fingerprints"], "0123456789abcdef") | {"id": str(uuid4())}
    drain(platform, ["card_fingerprints", "currencies"], store=store)
    stored = next_offsets(store, "card_fingerprints")
    alter(platform, "RENAME issuer_country TO issued_in", "card_fingerprints")
    try:
        produce(platform, record("card_fingerprints", "c", card, lsn=1))
        told = "card_fingerprints stop.*no captured column issuer_country.*rebuild card_fingerprints"
        with pytest.raises(TablesStopped, match=told) as stopped:
            drain(platform, ["card_fingerprints", "currencies"], store=store)
    finally:
        alter(platform, "RENAME issued_in TO issuer_country", "card_fingerprints")
    found = {table: type(error) for table, error in stopped.value.errors.items()}
    assert found == {"card_fingerprints": ColumnsMissing}
    assert next_offsets(store, "card_fingerprints") == stored
    assert letters(store, "card_fingerprints") == {}


def test_offsets_that_were_deleted_unread_stop_their_table_with_the_remedy(platform: Settings, store: Store) -> None:
    begin = at_end(platform, store, "invoices")
    produce(platform, raw("invoices", b"1"), raw("invoices", b"2"))
    client, topic = admin(platform), topic_for("invoices")
    deleted = client.delete_records([TopicPartition(topic, 0, begin + 2)])
    assert [answer.result(LIMIT_SECONDS).low_watermark for answer in deleted.values()] == [begin + 2]
    id = str(uuid4())
    produce(platform, created("payouts", id))
    told = r"MongoDB's documents of invoices.*deleted unread, 2 offsets.*stripe-platform rebuild invoices"
    with pytest.raises(TablesStopped, match=told) as stopped:
        drain(platform, ["invoices", "payouts"], store=store)
    assert isinstance(stopped.value.errors["invoices"], OffsetsOutOfRange)
    assert next_offsets(store, "invoices")[0] == begin
    assert id in rows(store, "payouts")


def test_a_topic_that_was_created_again_stops_its_table_and_its_letters(platform: Settings, store: Store) -> None:
    produce(platform, raw("early_fraud_warnings", b"not JSON"))
    drain(platform, ["early_fraud_warnings"], store=store)
    client, topic = admin(platform), topic_for("early_fraud_warnings")
    client.delete_topics([topic])[topic].result(LIMIT_SECONDS)
    wait_until(lambda: topic not in admin(platform).list_topics(timeout=10).topics, "the topic is gone")
    assert ensure_topics(platform) == (topic,)
    wait_until(lambda: is_known(platform, "early_fraud_warnings"), "the topic is known")
    with pytest.raises(TablesStopped, match=r"created again.*stripe-platform rebuild") as stopped:
        drain(platform, ["early_fraud_warnings"], store=store)
    assert isinstance(stopped.value.errors["early_fraud_warnings"], TopicRecreated)
    # As a rebuild will leave it: what the new topic holds is followed.
    store.documents["sink"].update_one(
        {}, {"$set": {"offsets.early_fraud_warnings.topic_id": new_topic_id(platform, "early_fraud_warnings")}}
    )
    again = replay(platform, store)
    assert list(again.refused.values()) == [OTHER_TOPIC]


def test_a_topic_that_is_missing_stops_its_table_alone(platform: Settings, store: Store) -> None:
    id = str(uuid4())
    produce(platform, created("payouts", id))
    client, topic = admin(platform), topic_for("addresses")
    client.delete_topics([topic])[topic].result(LIMIT_SECONDS)
    wait_until(lambda: topic not in admin(platform).list_topics(timeout=10).topics, "the topic is gone")
    try:
        with pytest.raises(TablesStopped, match=rf"topic {topic} does not exist in Kafka") as stopped:
            drain(platform, ["addresses", "payouts"], store=store)
    finally:
        assert ensure_topics(platform) == (topic,)
        wait_until(lambda: is_known(platform, "addresses"), "the topic is known")
    assert {table: type(error) for table, error in stopped.value.errors.items()} == {"addresses": TopicMissing}
    assert id in rows(store, "payouts")


def new_topic_id(settings: Settings, table: str) -> str:
    return topic_ids(settings, [table])[table]


def is_known(settings: Settings, table: str) -> bool:
    """A topic that was just created is for a moment unknown, then without a leader."""
    try:
        beginning_offsets(settings, [table])
        topic_ids(settings, [table])
    except (TopicMissing, BrokerUnavailable):
        return False
    return True
