"""Collections built anew from raw change logs, on a real mongod: equal to what streaming built, or better."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect
from pymongo.results import UpdateResult

from stripe_platform.cdc import reader
from stripe_platform.features import dead_letters, online, raw_source, rebuild, shadow, tiles
from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.dead_letters import Letter
from stripe_platform.features.decoder import TableDecoder
from stripe_platform.features.hold import COLLECTION as SINK
from stripe_platform.features.hold import ID, Held, Hold, HoldLost, holding
from stripe_platform.features.offsets import LostRace, TableOffsets, begin, stored_offsets
from stripe_platform.features.online import FeatureVector
from stripe_platform.features.payments import Entity
from stripe_platform.features.projection import Store, Unprojectable
from stripe_platform.features.rebuild import GROUPS, Point, Rebuilt, UnknownCollection, groups_of
from stripe_platform.features.sink import open_store
from stripe_platform.features.transaction import StoreFailed
from stripe_platform.features.windows import AsOf
from stripe_platform.features.writer import Writer
from stripe_platform.local.environment import environment
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.features import logs, rows
from stripe_platform_tests.integration.features.logs import Logs
from stripe_platform_tests.integration.features.test_documents_in_any_order import History, interleaved

ALL = tuple(collection for group in GROUPS for collection in group.collections)
TILES = tuple(entity.collection for entity in Entity)
LIMIT_SECONDS = 60


@pytest.fixture
def new_store(mongod_settings: Settings) -> Iterator[Callable[..., Store]]:
    """Opens the store of a database of the test's own; with its name, as another writer."""
    name = f"test_{uuid4().hex}"
    settings = mongod_settings.model_copy(update={"mongodb_database": name})
    with ExitStack() as opened:
        yield lambda: opened.enter_context(open_store(settings))
        opened.enter_context(open_store(settings)).documents.client.drop_database(name)


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    return new_store()


@pytest.fixture
def lake(tmp_path: Path) -> Logs:
    return Logs(Settings(stripe_platform_home=tmp_path))


class Stream:
    """Writes changes into the logs and applies them to the documents, as both drains do."""

    def __init__(self, settings: Settings, store: Store, lake: Logs) -> None:
        self._settings, self._store, self._lake = settings, store, lake

    def take(self, changes: list[Change], *, into_log: bool = True) -> None:
        if into_log:
            self._lake.write(changes)
        while changes:
            batch, changes = changes[:50], changes[50:]
            self._apply(batch)

    def _apply(self, batch: list[Change]) -> None:
        stored = begin(self._store.documents)
        moved = {}
        for change in batch:
            start = dict.fromkeys(logs.partitions(change.table), 0)
            moved[change.table] = TableOffsets(
                f"{change.table}-topic", start | {0: change.offset + 1}, logs.kinds(change.table)
            )
        writer = Writer(self._settings, self._store, stored.version)
        writer.write(batch, moved, before=lambda _: None, after=lambda _: None)


@pytest.fixture
def stream(mongod_settings: Settings, store: Store, lake: Logs) -> Stream:
    return Stream(mongod_settings, store, lake)


@pytest.fixture
def history(stream: Stream, request: pytest.FixtureRequest) -> History:
    """A history that was streamed, its tables in an order of their own."""
    random, made = Random(getattr(request, "param", 1)), History()  # noqa: S311
    for _ in range(250):
        made.go_on(random)
    made.topics.write("charges", "c", rows.charge(99, customer_id=rows.uuid(2)))
    stream.take(interleaved(made.topics.written, random))
    return made


@pytest.fixture(autouse=True)
def read_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_source, "OFFSETS_AT_ONCE", 7)


@pytest.fixture
def build_anew(mongod_settings: Settings, store: Store, lake: Logs) -> Callable[..., list[Rebuilt]]:
    def build(*names: str, at: Callable[[Point], None] = rebuild.nowhere) -> list[Rebuilt]:
        return rebuild.rebuild(mongod_settings, store, names, sources=lake.source, at=at)

    return build


def differed(rebuilt: list[Rebuilt]) -> dict[str, int]:
    """Of the collections where any document differed."""
    return {name: count for each in rebuilt for name, count in each.differed.items() if count}


def contents(documents: Documents) -> dict[str, Any]:
    """All documents without the clock's fields; delete markers are kept as such."""
    clocks = ("expires", "incomplete_since")
    return {
        name: sorted(
            ({key: value for key, value in found.items() if key not in clocks} for found in documents[name].find()),
            key=lambda found: str(found["_id"]),
        )
        for name in ALL
    }


def nothing_lies_beside(documents: Documents) -> bool:
    return not any("__rebuild_" in name for name in documents.list_collection_names())


def expire(documents: Documents) -> None:
    """As if the holder had been gone for as long as a hold lives."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert documents[SINK].update_one({"_id": ID}, {"$set": {"hold.until": past}}).modified_count == 1


# Equal, and mended.


@pytest.mark.parametrize("history", [1, 2, 5], indirect=True, ids=lambda seed: f"seed {seed}")
def test_collections_built_anew_are_those_that_streaming_built(
    store: Store, history: History, build_anew: Callable[..., list[Rebuilt]]
) -> None:
    documents = store.documents
    before, offsets = contents(documents), stored_offsets(documents).tables
    indexes = {name: documents[name].index_information() for name in ALL}
    assert all(before[name] for name in GROUPS[0].collections)
    rebuilt = build_anew("charges", *(table for table in ALL if table in ("customers", "merchants", "events")))
    assert differed(rebuilt) == {}
    assert contents(documents) == before
    assert stored_offsets(documents).tables == offsets
    assert {name: documents[name].index_information() for name in ALL} == indexes
    assert nothing_lies_beside(documents)


def test_streaming_goes_on_where_it_was(
    store: Store, stream: Stream, history: History, build_anew: Callable[..., list[Rebuilt]]
) -> None:
    build_anew("charges", "customers")
    random = Random(7)  # noqa: S311
    seen = len(history.topics.written)
    for _ in range(100):
        history.go_on(random)
    stream.take(history.topics.written[seen:])
    assert differed(build_anew("charges", "customers", "merchants", "events")) == {}


def test_wrong_documents_are_found_and_mended(
    store: Store, history: History, build_anew: Callable[..., list[Rebuilt]]
) -> None:
    documents = store.documents
    before = contents(documents)
    living = [found["_id"] for found in documents["charges"].find({"status": {"$exists": True}})]
    documents["charges"].update_one({"_id": living[0]}, {"$inc": {"amount": 1}})
    documents["charges"].delete_one({"_id": living[1]})
    documents["source_rows"].update_one({"row.brand": {"$exists": True}}, {"$set": {"row.brand": "other"}})
    documents["customers"].insert_one({**(documents["customers"].find_one() or {}), "_id": f"cus_{'0' * 32}"})
    documents["merchant_features"].update_one({}, {"$inc": {"payments": 1}})
    found = differed(build_anew("charges", "customers"))
    extra = int("expires" not in (documents["customers"].find_one() or {}))
    assert found == {"charges": 2, "source_rows": 1, "merchant_features": 1} | ({"customers": 1} if extra else {})
    assert contents(documents) == before
    assert differed(build_anew("charges", "customers")) == {}


def test_features_alone_are_built_from_the_documents_of_charges(
    store: Store, history: History, build_anew: Callable[..., list[Rebuilt]], monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = store.documents
    before = contents(documents)
    documents["card_features"].update_one({}, {"$inc": {"payments": 1}})
    monkeypatch.setattr("stripe_platform.features.rebuilding.MOST_RECORDS", 2)
    (rebuilt,) = build_anew("features/card_features")
    assert rebuilt.differed == {"card_features": 1}
    assert contents(documents) == before
    assert {name for each in build_anew(*TILES) for name, count in each.differed.items() if not count} == set(TILES)


# What the log says of whole tables.


def test_what_was_known_before_a_gap_is_forgotten_and_the_hole_recorded(
    store: Store, stream: Stream, lake: Logs, build_anew: Callable[..., list[Rebuilt]]
) -> None:
    topics = rows.Topics()
    lost, kept = rows.customer(1), rows.customer(2)
    stream.take([topics.write("customers", "c", lost), topics.write("customers", "c", kept)])
    lake.log("customers").record_gaps({0: 4}, {0: 5})
    topics._offsets["customers"] = 4
    stream.take([topics.write("customers", "r", kept)])
    assert len(rows.stored(store.documents, "customers")) == 2
    lake.holes["customers"] = "a hole"
    assert build_anew("customers")[0].differed["customers"] >= 1
    assert [found["_id"] for found in store.documents["customers"].find()] == [f"cus_{rows.hex_digits(2)}"]
    assert stored_offsets(store.documents).holes == {"customers": "a hole"}


def test_rows_from_before_a_truncate_are_gone(
    store: Store, stream: Stream, lake: Logs, build_anew: Callable[..., list[Rebuilt]]
) -> None:
    topics = rows.Topics()
    stream.take([topics.write("merchants", "c", rows.merchant(number)) for number in (1, 2)])
    lake.write([topics.write("merchants", "t", dict.fromkeys(rows.merchant(1)))])
    stream.take([topics.write("merchants", "c", rows.merchant(3))])
    assert differed(build_anew("merchants")) == {"merchants": 2}
    assert [found["_id"] for found in store.documents["merchants"].find()] == [f"acct_{rows.hex_digits(3)}"]


def test_dead_letters_stay_letters_and_what_cannot_be_projected_becomes_one(
    mongod_settings: Settings, store: Store, stream: Stream, lake: Logs, build_anew: Callable[..., list[Rebuilt]]
) -> None:
    topics = rows.Topics()
    deep: Any = 1
    for _ in range(120):
        deep = [deep]
    refused = topics.write("events", "c", rows.event(1, payload={"deep": deep}))
    later = topics.write("events", "c", rows.event(2))
    lake.write([refused, later])
    with pytest.raises(Unprojectable):
        stream.take([refused, later], into_log=False)
    stream.take([later], into_log=False)
    # It could be projected by now, but that is for a replay to do.
    aside = topics.write("events", "c", rows.event(3))
    lake.write([aside])
    kept = Letter.of("events", "events-topic", reader.Event("", 0, aside.offset, b"", None), "not yet")
    with store.documents.client.start_session() as session, session.start_transaction():
        dead_letters.keep(session, store.documents, [kept])
    assert differed(build_anew("events")) == {}
    assert differed(build_anew("events")) == {}
    letter, other = dead_letters.listed(store.documents)
    assert (other.offset, other.reason) == (aside.offset, "not yet")
    assert (letter.table, letter.offset) == ("events", refused.offset)
    assert "nested deeper" in letter.reason
    # Replayed, it is read as the record would be.
    decoder = TableDecoder(
        "events", logs.columns("events"), kinds={}, placeholder="-", ask=lambda: logs.columns("events")
    )
    event = dead_letters.event_of(store.documents, letter, "stripe.payments.events")
    assert decoder.decode([event]).changes == [refused]


@pytest.mark.parametrize("name", ["charges", "card_features"])
def test_a_new_writer_that_ends_the_running_transaction_is_borne(
    new_store: Callable[[], Store],
    history: History,
    build_anew: Callable[..., list[Rebuilt]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    write = tiles.write
    others: list[Store] = []

    def write_and_meet_another(session: ClientSession, *arguments: Any) -> None:
        write(session, *arguments)
        if len(others) < 2:
            others.append(new_store())
            if len(others) == 2:
                # In the midst of a call.
                raise LostRace

    monkeypatch.setattr(tiles, "write", write_and_meet_another)
    assert differed(build_anew(name)) == {}
    assert len(others) == 2


# Holding.


def write_nothing(settings: Settings, store: Store, version: int) -> None:
    Writer(settings, store, version).write([], {}, before=lambda _: None, after=lambda _: None)


def test_writers_give_way_to_a_hold_and_go_on_after_it(mongod_settings: Settings, store: Store) -> None:
    before = begin(store.documents)
    with holding(store.documents, ["charges"]):
        with pytest.raises(Held, match="charges are built anew"):
            begin(store.documents)
        for version in (before.version, stored_offsets(store.documents).version):
            with pytest.raises(LostRace):
                write_nothing(mongod_settings, store, version)
    with pytest.raises(LostRace):
        write_nothing(mongod_settings, store, before.version)
    write_nothing(mongod_settings, store, begin(store.documents).version)


def test_one_who_stood_still_for_too_long_changes_nothing(store: Store) -> None:
    begin(store.documents)
    with holding(store.documents, ["customers"]) as hold:
        beside = shadow.made(store.documents, ["customers"], hold.shadow)
        assert beside["customers"].count_documents({}) == 0
        expire(store.documents)
        begin(store.documents)
        assert nothing_lies_beside(store.documents)
        with pytest.raises(HoldLost):
            hold.decide(["customers"], {})
        shadow.put_in_place(store.documents, ["customers"], hold.shadow)
    begin(store.documents)
    assert "customers" in store.documents.list_collection_names()


def test_a_hold_is_kept_for_as_long_as_its_holder_lives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(store.documents)
    monkeypatch.setattr("stripe_platform.features.hold.EXTENDED_EVERY", timedelta(milliseconds=10))
    with holding(store.documents, ["customers"]):
        expire(store.documents)
        deadline = datetime.now(UTC) + timedelta(seconds=LIMIT_SECONDS)
        while (store.documents[SINK].find_one() or {})["hold"]["until"] < datetime.now(UTC):
            assert datetime.now(UTC) < deadline
        with pytest.raises(Held):
            Hold(store.documents, ["charges"]).take()


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_decision_whose_answer_was_lost_is_carried_out_or_nothing_is_changed(
    store: Store,
    history: History,
    build_anew: Callable[..., list[Rebuilt]],
    monkeypatch: pytest.MonkeyPatch,
    is_stored: bool,
) -> None:
    documents = store.documents
    right = contents(documents)
    for name in GROUPS[0].collections:
        documents[name].delete_one({})
    wrong = contents(documents)
    update_one, drop_collection, dropped = Collection.update_one, Database.drop_collection, 0

    def lose_the_answer(of: Collection[Any], condition: Any, change: Any, **options: Any) -> UpdateResult:
        if "hold.swap" not in change.get("$set", {}):
            return update_one(of, condition, change, **options)
        if is_stored:
            update_one(of, condition, change, **options)
        raise AutoReconnect("lost")

    def drop_one(of: Database[Any], name: str) -> None:
        nonlocal dropped
        dropped += 1
        if dropped > 1:
            raise AutoReconnect("lost")
        drop_collection(of, name)

    with monkeypatch.context() as lossy:
        lossy.setattr(Collection, "update_one", lose_the_answer)
        lossy.setattr(Database, "drop_collection", drop_one)
        with pytest.raises(StoreFailed):
            build_anew("charges")
    expire(documents)
    begin(documents)
    assert contents(documents) == (right if is_stored else wrong)
    assert nothing_lies_beside(documents)


def test_features_are_read_while_a_rebuild_puts_their_collections_in_place(
    store: Store, history: History, build_anew: Callable[..., list[Rebuilt]]
) -> None:
    charge = rows.charge(99, customer_id=rows.uuid(2))
    as_of = AsOf(charge["created"], "ch_z")
    is_over = Event()

    def read_on() -> list[FeatureVector]:
        found = []
        while not is_over.is_set():
            merchant, customer = f"acct_{rows.hex_digits(1)}", f"cus_{rows.hex_digits(2)}"
            found.append(
                online.read(store.documents, card="1", customer=customer, merchant=merchant, as_of=as_of, payment=None)
            )
        return found

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read_on) for _ in range(2)]
        try:
            for _ in range(2):
                build_anew("charges")
        finally:
            is_over.set()
        vectors = [vector for each in readers for vector in each.result(LIMIT_SECONDS)]
    assert {vector.values["customer_payments_1h"] for vector in vectors} == {1}
    assert len({vector.version for vector in vectors}) > 2


# Killed.

POINTS: Mapping[str, bool] = {"held": False, "projected": False, "compared": False, "decided": True, "renamed": True}

BUILD_AND_DIE = """
import os, signal, sys
from stripe_platform.features import rebuild, shadow
from stripe_platform.features.sink import open_store
from stripe_platform.settings import Settings, load_settings
from stripe_platform_tests.integration.features.logs import Logs

settings = load_settings().model_copy(update={"mongodb_database": sys.argv[1]})
last = sys.argv[3]

def at(point):
    if point == last:
        os.kill(os.getpid(), signal.SIGKILL)

def put_some_in_place(documents, collections, suffix):
    put_in_place(documents, collections[:2], suffix)
    os.kill(os.getpid(), signal.SIGKILL)

put_in_place = shadow.put_in_place
if last == "renamed":
    shadow.put_in_place = put_some_in_place
with open_store(settings) as store:
    source = Logs(Settings(stripe_platform_home=sys.argv[2])).source
    rebuild.rebuild(settings, store, ["charges"], sources=source, at=at)
"""


@pytest.mark.parametrize(("point", "is_decided"), POINTS.items())
def test_killed_it_has_changed_nothing_or_the_next_writer_ends_it(  # noqa: PLR0917
    mongod_settings: Settings,
    store: Store,
    lake: Logs,
    history: History,
    build_anew: Callable[..., list[Rebuilt]],
    point: str,
    is_decided: bool,
) -> None:
    documents = store.documents
    right = contents(documents)
    documents["card_features"].update_one({}, {"$inc": {"payments": 1}})
    documents["charges"].update_one({"status": {"$exists": True}}, {"$inc": {"amount": 1}})
    wrong = contents(documents)
    killed = subprocess.run(
        [sys.executable, "-c", BUILD_AND_DIE, documents.name, str(lake.settings.home), point],
        env=os.environ | environment(mongod_settings),
        timeout=LIMIT_SECONDS,
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(Held):
        begin(documents)
    expire(documents)
    begin(documents)
    assert nothing_lies_beside(documents)
    assert contents(documents) == (right if is_decided else wrong)
    assert bool(differed(build_anew("charges"))) != is_decided
    assert contents(documents) == right


# Names.


def test_a_name_stands_for_its_group_and_features_alone_for_themselves() -> None:
    assert groups_of(["features/charges", "card_features"]) == [GROUPS[0]]
    assert groups_of(["refunds", "customers"]) == [GROUPS[0], GROUPS[1]]
    (alone,) = groups_of(["features/card_features", "merchant_features"])
    assert (alone.collections, alone.tables) == (("card_features", "merchant_features"), ())
    with pytest.raises(UnknownCollection, match="payouts: not built"):
        groups_of(["charges", "payouts"])
