"""Features read from a real mongod, against the plain reference; documents of charges as the projector writes them."""

import itertools
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.database import Database
from pymongo.errors import WriteError

from stripe_platform.features.hold import COLLECTION as SINK_COLLECTION
from stripe_platform.features.hold import ID as SINK
from stripe_platform.features.online import FeatureVector, read
from stripe_platform.features.payments import AMOUNT_LIMIT, CHARGES, PAYMENT_INDEXES, Entity, Payment, payment_of
from stripe_platform.features.queries import questions
from stripe_platform.features.tiles import TILE_INDEXES, TILE_VALIDATOR, deltas, total, write
from stripe_platform.features.windows import DAY, HOUR, MINUTE, AsOf
from stripe_platform_tests.unit.features.reference import MOMENTS, Keys, Scene, micros, reference, scenes

Store = Database[dict[str, Any]]
T = MOMENTS[-1]
KEYS: Keys = {Entity.CARD: "c", Entity.CUSTOMER: "cus_1", Entity.MERCHANT: "acct_1"}
numbers = itertools.count()


@pytest.fixture(scope="module")
def store(database: Store) -> Store:
    for entity in Entity:
        database.create_collection(entity.collection, validator=TILE_VALIDATOR)
        database[entity.collection].create_indexes(list(TILE_INDEXES))
    database[CHARGES].create_indexes(list(PAYMENT_INDEXES))
    database[SINK_COLLECTION].insert_one({"_id": SINK, "version": 1, "offsets": {}})
    return database


@pytest.fixture
def empty(store: Store) -> Store:
    for name in (CHARGES, *(entity.collection for entity in Entity)):
        store[name].delete_many({})
    return store


def document_of(payment: Payment) -> dict[str, Any]:
    document: dict[str, Any] = {
        "_id": payment.id,
        "created": payment.created,
        "status": "failed" if payment.declined else "succeeded",
        "merchant": payment.merchant,
        "customer": payment.customer,
        "reporting_amount": payment.amount,
        "fraud_known_at": payment.fraud_known_at,
        "refunds": [],
        "incomplete": [],
    }
    if payment.card is None:
        return {**document, "incomplete": ["card"]}
    return {**document, "card": {"fingerprint": payment.card, "brand": "visa"}}


def apply(store: Store, changes: Iterable[tuple[str, Payment | None]]) -> None:
    """One batch as the projector applies it: the documents, and in the same transaction their tiles."""
    with store.client.start_session() as session, session.start_transaction():
        corrections = []
        for identity, after in changes:
            held = store[CHARGES].find_one({"_id": identity}, session=session)
            before = None if held is None else payment_of(held)
            deleted = {**(held or {"_id": identity}), "deleted": True}
            new = deleted if after is None else document_of(after)
            store[CHARGES].replace_one({"_id": identity}, new, upsert=True, session=session)
            corrections.append(deltas(before, payment_of(new)))
        write(session, store, total(corrections))


def read_as(store: Store, keys: Keys, as_of: AsOf, scored: Payment | None = None) -> FeatureVector:
    return read(
        store,
        card=keys[Entity.CARD],
        customer=keys[Entity.CUSTOMER],
        merchant=keys[Entity.MERCHANT],
        as_of=as_of,
        payment=scored,
    )


def tiles(store: Store, *owners: str) -> dict[str, list[Mapping[str, Any]]]:
    """The tiles of these keys, without the time at which they expire."""
    wanted = {"_id.entity": {"$in": owners}} if owners else {}
    return {
        entity.collection: list(store[entity.collection].find(wanted, {"expires": 0}).sort("_id")) for entity in Entity
    }


def payment(number: int, created: int, **changed: Any) -> Payment:
    states: Mapping[str, Any] = {
        "merchant": "acct_1",
        "customer": "cus_1",
        "card": "c",
        "amount": 100,
        "declined": False,
        "fraud_known_at": None,
    }
    return Payment(id=f"ch_{number:032x}", created=created, **{**states, **changed})


def batches(scene: Scene, size: int) -> Iterator[list[tuple[str, Payment | None]]]:
    for begin in range(0, len(scene.changes), size):
        yield scene.changes[begin : begin + size]


@st.composite
def own_scenes(draw: st.DrawFn) -> Scene:
    """Scenes whose keys no other scene has, so that one store serves them all."""
    return draw(scenes(prefix=f"{next(numbers)}/"))


@settings(max_examples=150, deadline=None)
@given(own_scenes(), st.integers(1, 10))
def test_the_read_equals_the_plain_reference_for_random_histories(store: Store, scene: Scene, batch: int) -> None:
    for changes in batches(scene, batch):
        apply(store, changes)
    vector = read_as(store, scene.keys, scene.as_of, scene.scored)
    assert vector.values == reference(scene.history, scene.keys, scene.as_of, scene.scored)


def test_the_read_equals_the_plain_reference_for_a_busy_merchant(empty: Store) -> None:
    """Many payments in every slot, days that are full: what random scenes are too small for."""
    chance = random.Random(5)  # noqa: S311
    history = [
        payment(
            number,
            T - chance.randrange(38 * DAY) if number % 3 else T - chance.randrange(2 * HOUR),
            card=f"card {chance.randrange(30)}",
            customer=f"cus_{chance.randrange(40)}",
            amount=chance.choice([None, 250, 17, -3]),
            declined=chance.random() < 0.2,
            fraud_known_at=chance.choice([None, T - chance.randrange(DAY), T, T + 1]),
        )
        for number in range(2_000)
    ]
    apply(empty, [(p.id, p) for p in history])
    for scored in (None, payment(3_000, T, card="card 1", customer="cus_1")):
        as_of = AsOf(T, scored.id if scored else None)
        keys = {**KEYS, Entity.CARD: "card 1"}
        assert read_as(empty, keys, as_of, scored).values == reference(history, keys, as_of, scored)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_window_begins_after_its_older_end_and_holds_its_newer_end(empty: Store, moment: int) -> None:
    length = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
    for number, (name, ago) in enumerate(length.items()):
        apply(empty, [(p.id, p) for p in [payment(number, moment - ago)]])
        at_end, just_inside = (
            read_as(empty, KEYS, AsOf(as_of)).values[f"card_payments_{name}"] for as_of in (moment, moment - 1)
        )
        assert (at_end, just_inside) == (0, 1), name
        apply(empty, [(f"ch_{number:032x}", None)])
    apply(empty, [(p.id, p) for p in [payment(9, moment)]])
    assert read_as(empty, KEYS, AsOf(moment)).values["card_payments_1h"] == 1
    assert read_as(empty, KEYS, AsOf(moment - 1)).values["card_payments_1h"] == 0


def test_the_payment_being_scored_counts_once_whether_it_is_stored_or_not(empty: Store) -> None:
    scored = payment(5, T, amount=700)
    as_of = AsOf(T, scored.id)
    apply(empty, [(p.id, p) for p in (payment(4, T), payment(6, T), payment(7, T - HOUR + 1))])
    before = read_as(empty, KEYS, as_of, scored).values
    # Stored, it was declined; and its card was not known yet.
    for stored in (payment(5, T, amount=700, declined=True), payment(5, T, amount=None, card=None)):
        apply(empty, [(stored.id, stored)])
        assert read_as(empty, KEYS, as_of, scored).values == before
    assert (before["card_payments_1h"], before["card_amount_sum_1h"], before["card_declined_1h"]) == (3, 900, 0)
    assert before["card_microseconds_since_previous"] == 0


def test_a_label_counts_from_the_time_at_which_it_is_known_and_never_for_young_payments(empty: Store) -> None:
    apply(
        empty,
        [
            (p.id, p)
            for p in (
                payment(1, T - 7 * DAY, fraud_known_at=T),
                payment(2, T - 7 * DAY + 1, fraud_known_at=T - DAY),
                payment(3, T - 8 * DAY + 1, fraud_known_at=T + 1),
            )
        ],
    )
    rate = "merchant_fraud_rate_24h"
    assert read_as(empty, KEYS, AsOf(T)).values[rate] == 1 / 2
    assert read_as(empty, KEYS, AsOf(T + 1)).values[rate] == 2 / 2
    assert read_as(empty, KEYS, AsOf(T - 1)).values[rate] == 0 / 1


def test_a_deleted_charge_and_one_whose_row_has_not_come_are_no_payments(empty: Store) -> None:
    apply(empty, [(p.id, p) for p in [payment(1, T)]])
    empty[CHARGES].insert_one({"_id": "ch_refunded_first", "refunds": [{"id": "re_1"}], "incomplete": ["charge"]})
    empty[CHARGES].insert_one({**document_of(payment(2, T - 1)), "deleted": True})
    assert payment_of({"_id": "ch_refunded_first", "incomplete": ["charge"]}) is None
    values = read_as(empty, KEYS, AsOf(T)).values
    assert (values["card_payments_1h"], values["card_microseconds_since_previous"]) == (1, 0)


def test_a_previous_payment_is_looked_for_within_30_days_only(empty: Store) -> None:
    apply(empty, [(p.id, p) for p in [payment(1, T - 30 * DAY)]])
    name = "card_microseconds_since_previous"
    assert read_as(empty, KEYS, AsOf(T)).values[name] is None
    assert read_as(empty, KEYS, AsOf(T - 1)).values[name] == 30 * DAY - 1


def test_amounts_that_could_overflow_a_tile_count_as_not_converted(empty: Store) -> None:
    enormous = {**document_of(payment(1, T)), "reporting_amount": 2**63 - 1}
    assert payment_of(enormous) == payment(1, T, amount=None)
    empty[CHARGES].insert_one(enormous)
    apply(empty, [(p.id, p) for p in [payment(2, T, amount=AMOUNT_LIMIT)]])
    values = read_as(empty, KEYS, AsOf(T)).values
    assert (values["card_payments_1h"], values["card_amount_mean_1h"]) == (2, AMOUNT_LIMIT)


def test_the_tiles_are_those_of_an_undisturbed_history_document_for_document(empty: Store) -> None:
    final = [payment(n, T - n * 7 * MINUTE, declined=n % 2 == 0) for n in range(40)]
    apply(empty, [(p.id, p) for p in final])
    undisturbed = tiles(empty)
    for collection in (CHARGES, *undisturbed):
        empty[collection].delete_many({})
    passing = [payment(n, T - n * 3 * HOUR, card="other", amount=None) for n in range(40, 80)]
    pending = [replace(p, amount=None, card=None, declined=False) for p in final]
    apply(empty, [(p.id, p) for p in (*passing, *pending)])
    apply(empty, [(p.id, None) for p in (*passing, *pending[:10])])
    apply(empty, [(p.id, p) for p in final])
    assert tiles(empty) == undisturbed
    apply(empty, [(p.id, p) for p in final])
    assert tiles(empty) == undisturbed


def test_what_corrects_an_expired_tile_does_not_begin_it_anew(empty: Store) -> None:
    old = payment(1, T)
    apply(empty, [(old.id, old)])
    empty[Entity.CARD.collection].delete_many({})
    apply(empty, [(old.id, payment(1, T, declined=True))])
    apply(empty, [(old.id, None)])
    assert not any(tiles(empty).values())


def test_the_validator_refuses_sums_that_are_no_int64(store: Store) -> None:
    cards = store[Entity.CARD.collection]
    good = {"payments": 1, "declined": 0, "amount": 0, "unconverted": 0, "fraud": 0}
    for sums in (good, {**good, "payments": 1.0}):
        with pytest.raises(WriteError, match="Document failed validation"):
            cards.insert_one({"_id": {"entity": "c", "day": 1}, **sums, "slots": {}, "expires": datetime.now(UTC)})


def test_a_tile_lives_for_45_days_after_its_last_write(empty: Store) -> None:
    written = datetime.now(UTC)
    apply(empty, [(p.id, p) for p in [payment(1, micros(datetime(2018, 4, 1, tzinfo=UTC)))]])
    (expiry,) = empty[Entity.CARD.collection].distinct("expires")
    assert timedelta(days=45) <= expiry - written <= timedelta(days=46, seconds=1)


def test_mongod_removes_tiles_that_have_expired(empty: Store) -> None:
    apply(empty, [(p.id, p) for p in (payment(1, T), payment(2, T, card="alive"))])
    cards = empty[Entity.CARD.collection]
    cards.update_one({"_id.entity": "c"}, {"$set": {"expires": datetime.now(UTC)}})
    deadline = time.monotonic() + 60
    while cards.count_documents({"_id.entity": "c"}):
        assert time.monotonic() < deadline
    assert cards.distinct("_id.entity") == ["alive"]


def test_features_and_offsets_are_of_one_snapshot_while_payments_come(empty: Store) -> None:
    """The sink's version moves in the transaction of each payment: a read sees as many payments as its version says."""
    sink = empty[SINK_COLLECTION]
    offsets = {"charges": {"topic_id": "t", "next": {"0": 7}}}
    sink.replace_one({"_id": SINK}, {"version": 0, "offsets": offsets})

    def write_payments() -> None:
        for number in range(30):
            new = payment(number, T - number)
            with empty.client.start_session() as session, session.start_transaction():
                sink.update_one({"_id": SINK}, {"$inc": {"version": 1}}, session=session)
                empty[CHARGES].replace_one({"_id": new.id}, document_of(new), upsert=True, session=session)
                write(session, empty, deltas(None, new))

    counts = ["card_payments_30d", "customer_payments_1h", "merchant_payments_7d"]
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_payments)
        while not writing.done():
            vector = read_as(empty, KEYS, AsOf(T))
            assert [vector.values[name] for name in counts] == [vector.version] * 3
    writing.result()
    last = read_as(empty, KEYS, AsOf(T))
    assert (last.version, last.offsets) == (30, offsets)


def test_the_store_answers_before_the_first_batch_of_the_sink(database: Store) -> None:
    fresh = database.client[f"{database.name}_fresh"]
    try:
        vector = read_as(fresh, {**KEYS, Entity.CUSTOMER: None}, AsOf(T))
    finally:
        fresh.client.drop_database(fresh)
    assert (vector.version, vector.offsets, vector.values["card_payments_1h"]) == (None, {}, 0)
    assert vector.values["customer_payments_1h"] is None


def test_a_payment_that_is_not_at_as_of_is_refused(empty: Store) -> None:
    with pytest.raises(ValueError, match="must be at as_of"):
        read_as(empty, KEYS, AsOf(T), payment(1, T))


@pytest.mark.parametrize("count", [1, 30, 200])
def test_no_read_fetches_a_document_of_charges(empty: Store, count: int) -> None:
    """Each part of the read is answered by the keys of one index, that of its entity, however many there are."""
    apply(empty, [(p.id, p) for p in (payment(n, T - n * HOUR, fraud_known_at=T) for n in range(count))])
    for entity, key in KEYS.items():
        assert key is not None
        asked = [pipeline for name, pipeline in questions(entity, key, AsOf(T, payment(900, T).id)) if name == CHARGES]
        assert len(asked) >= 2
        for pipeline in asked:
            command = {"aggregate": CHARGES, "pipeline": pipeline, "cursor": {}}
            answer = empty.command("explain", command, verbosity="executionStats")
            plan = answer if "stages" not in answer else answer["stages"][0]["$cursor"]
            indexes = set(re.findall(r"'indexName': '(\w+)'", str(plan["queryPlanner"]["winningPlan"])))
            assert len(indexes) == 1, pipeline
            assert indexes <= {f"{entity}_by_time", f"{entity}_by_label"}
            assert plan["executionStats"]["totalDocsExamined"] == 0, pipeline
