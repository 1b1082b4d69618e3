"""Validators, indexes and expiry on a real mongod."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import IndexModel
from pymongo.errors import WriteError

from stripe_platform.features import dead_letters
from stripe_platform.features.collections import COLLECTIONS, OF_SINK, Collection, ensure_collections
from stripe_platform.features.connection import Documents, connect
from stripe_platform.features.dead_letters import Letter
from stripe_platform.features.offsets import begin
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.features import rows
from stripe_platform_tests.integration.features.rows import Row, Topics, take

DIGITS = "0" * 32
EXPIRY_LIMIT_S = 30


@pytest.fixture
def empty(mongod_settings: Settings) -> Iterator[Documents]:
    """A database without collections."""
    settings = mongod_settings.model_copy(update={"mongodb_database": f"test_{uuid.uuid4().hex}"})
    with connect(settings) as database:
        yield database
        database.client.drop_database(database.name)


def definitions(documents: Documents) -> Mapping[str, Any]:
    return {
        found["name"]: (found["options"], found["info"], documents[found["name"]].index_information())
        for found in documents.list_collections()
    }


def test_ensuring_the_collections_again_changes_nothing(empty: Documents) -> None:
    ensure_collections(empty)
    first = definitions(empty)
    altering = ("create", "collMod", "createIndexes", "dropIndexes")
    before = empty.client.admin.command("serverStatus")["metrics"]["commands"]

    ensure_collections(empty)

    after = empty.client.admin.command("serverStatus")["metrics"]["commands"]
    assert definitions(empty) == first
    assert first.keys() == {collection.name for collection in (*COLLECTIONS, *OF_SINK)}
    assert [name for name in altering if before[name] != after[name]] == []


def test_writers_that_begin_at_once_make_and_alter_the_collections_together(empty: Documents) -> None:
    ensure_collections(empty)
    wanted = definitions(empty)
    empty.client.drop_database(empty.name)
    at_once(ensure_collections, empty)
    assert without_uuids(definitions(empty)) == without_uuids(wanted)
    for name in wanted:
        empty.command("collMod", name, validator={})
        empty[name].drop_indexes()
        for index in wanted[name][2]:
            if index != "_id_":
                empty[name].create_index("other", name=index)
                break
    at_once(ensure_collections, empty)
    assert without_uuids(definitions(empty)) == without_uuids(wanted)


def at_once(make: Callable[[Documents], None], documents: Documents, writers: int = 4) -> None:
    start = threading.Barrier(writers)

    def one(_: int) -> None:
        start.wait(EXPIRY_LIMIT_S)
        make(documents)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(one, range(writers)))


def without_uuids(defined: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: (options, indexes) for name, (options, _, indexes) in defined.items()}


def test_an_older_validator_and_index_are_altered_and_documents_and_other_indexes_stay(empty: Documents) -> None:
    old = Collection(
        "merchants",
        "",
        {"bsonType": "object", "required": ["gone"]},
        (
            IndexModel([("expires", 1)], name="expires_ttl", expireAfterSeconds=60),
            IndexModel([("business_name", "text")], name="search"),
            IndexModel([("country", 1)], name="a_persons_own"),
        ),
    )
    ensure_collections(empty, [old])
    empty["merchants"].insert_one({"_id": "old", "gone": 1})

    ensure_collections(empty)

    options, _, indexes = definitions(empty)["merchants"]
    wanted = next(collection for collection in COLLECTIONS if collection.name == "merchants")
    assert options["validator"] == {"$jsonSchema": wanted.schema}
    assert indexes["expires_ttl"]["expireAfterSeconds"] == 0
    assert dict(indexes["search"]["weights"]) == {"business_name": 1, "statement_descriptor": 1}
    assert "a_persons_own" in indexes
    assert empty["merchants"].count_documents({}) == 1


def test_a_column_that_is_called_language_is_stored_like_any_other_also_where_the_index_is_older(
    empty: Documents,
) -> None:
    wanted = next(collection for collection in COLLECTIONS if collection.name == "charges")
    (search,) = (index for index in wanted.indexes if index.document["name"] == "search")
    older = {name: value for name, value in search.document.items() if name not in ("key", "language_override")}
    ensure_collections(empty, [replace(wanted, indexes=(IndexModel(list(search.document["key"].items()), **older),))])
    assert empty["charges"].index_information()["search"]["language_override"] == "language"

    ensure_collections(empty)
    topics = Topics()
    charges = [rows.charge(number, language=language) for number, language in enumerate(("de-DE", None, 7))]
    take(empty, [topics.write("charges", "c", charge) for charge in charges])

    assert empty["charges"].distinct("language") == [None, 7, "de-DE"]


CHARGE = rows.charge(10, payment_method_id=rows.uuid(30))
SOURCES: Mapping[str, Row] = {
    "charges": CHARGE,
    "refunds": rows.refund(40, CHARGE),
    "disputes": rows.dispute(50, CHARGE),
    "payment_methods": rows.method(30),
    "customers": rows.customer(2),
    "merchants": rows.merchant(1),
    "events": rows.event(70),
}


@pytest.fixture(scope="module")
def well_formed(documents: Documents) -> Mapping[str, Row]:
    """A document of each collection that the projector writes."""
    topics = Topics()
    for table, row in SOURCES.items():
        topics.write(table, "c", row)
    take(documents, topics.written)
    with documents.client.start_session() as session, session.start_transaction():
        dead_letters.keep(session, documents, [Letter("charges", "charges", "a", 0, 1, "no JSON", 9, b"record")])
    begin(documents)
    names = (*rows.COLLECTIONS, *(collection.name for collection in OF_SINK))
    found = {name: documents[name].find_one() or {} for name in names}
    decision = {"_id": 1, "charge": f"ch_{DIGITS}", "decision": "allow", "created_at": datetime.now(UTC)}
    return found | {"fraud_decisions": decision}


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            document = document[int(step) if step.isdigit() else step]
        document[last] = value

    return change


def _drop(field: str) -> Callable[[Any], None]:
    return lambda document: document.pop(field)


MALFORMED = [
    ("charges", "another prefix", _set("_id", f"pi_{DIGITS}")),
    ("charges", "an amount that is a float", _set("amount", 1.0)),
    ("charges", "a time that is a date", _set("created", datetime.now(UTC))),
    ("charges", "no status", _drop("status")),
    ("charges", "no place of its rows", _drop("_sources")),
    ("charges", "refunds that are no list", _set("refunds", {})),
    ("charges", "a refund without an id", _set("refunds", [{"amount": 1, "created": 1, "status": "succeeded"}])),
    ("charges", "a dispute whose amount is a text", _set("disputes.0.amount", "1")),
    ("charges", "a card without a fingerprint", _set("card", {"brand": "visa"})),
    ("charges", "incomplete by nothing", _set("incomplete", [])),
    ("charges", "a converted amount that is a float", _set("reporting_amount", 1.5)),
    ("source_rows", "no row and no expiry", _drop("row")),
    ("source_rows", "an offset that is a text", _set("o", "1")),
    ("customers", "an id of digits alone", _set("_id", DIGITS)),
    ("customers", "a time that is a text", _set("created", "2026")),
    ("merchants", "a name that is a number", _set("business_name", 1)),
    ("merchants", "a place that is half a position", _set("_sources", {"merchants": {"o": 1}})),
    ("events", "an expiry that is no date", _set("created_at", 1)),
    ("events", "a payload that is a text", _set("payload", "{}")),
    ("dead_letters", "no reason", _drop("reason")),
    ("dead_letters", "a note that is no object", _set("triaged", "seen")),
    ("dead_letter_parts", "data that is a text", _set("data", "{}")),
    ("sink", "offsets that are a list", _set("offsets", [])),
    ("fraud_decisions", "no charge", _drop("charge")),
    ("fraud_decisions", "an expiry that is no date", _set("created_at", 1)),
]


@pytest.mark.parametrize(
    ("collection", "change"), [pytest.param(name, how, id=f"{name}: {what}") for name, what, how in MALFORMED]
)
def test_a_malformed_document_is_refused(
    documents: Documents, well_formed: Mapping[str, Row], collection: str, change: Callable[[Any], None]
) -> None:
    document = deepcopy(well_formed[collection])
    documents[collection].delete_many({})
    documents[collection].insert_one(document)
    documents[collection].delete_many({})
    change(document)

    with pytest.raises(WriteError) as refused:
        documents[collection].insert_one(document)

    assert refused.value.code == 121


def test_documents_leave_when_they_expire_and_others_stay(empty: Documents) -> None:
    ensure_collections(empty)
    topics = Topics()
    now = datetime.now(UTC)
    for number, age in ((70, timedelta(days=29)), (71, timedelta(days=31))):
        created = int((now - age).timestamp() * 1_000_000)
        take(empty, [topics.write("events", "c", rows.event(number, created=created))])
    for number in (1, 2):
        take(empty, [topics.write("merchants", "c", rows.merchant(number))])
    take(empty, [topics.write("merchants", "d", rows.merchant(2)), topics.write("merchants", "c", rows.merchant(3))])
    short = {"expires": now - timedelta(seconds=1)}
    empty["merchants"].update_one({"deleted": True}, {"$set": short})

    deadline = time.monotonic() + EXPIRY_LIMIT_S
    while len(left := {*rows.stored(empty, "events"), *rows.stored(empty, "merchants")}) > 3:
        assert time.monotonic() < deadline, left

    assert left == {f"evt_{rows.hex_digits(70)}", f"acct_{rows.hex_digits(1)}", f"acct_{rows.hex_digits(3)}"}
