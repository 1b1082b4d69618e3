"""Each check of MongoDB shown passing and failing, on a real mongod."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stripe_platform.cdc.lag import LONGEST_UNREAD, Lag
from stripe_platform.features import audit as audit_module
from stripe_platform.features import checks, dead_letters
from stripe_platform.features.audit import audit
from stripe_platform.features.connection import Documents
from stripe_platform.features.payments import Entity
from stripe_platform.features.sink import TABLES, TilesOfCharges
from stripe_platform.features.windows import DAY, slot_name
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.features import rows
from stripe_platform_tests.integration.features.rows import Topics, clear, take

NOW = int(datetime.now(UTC).timestamp() * 1_000_000)


@pytest.fixture
def sound(mongod_settings: Settings, documents: Documents) -> Settings:
    """A store with two charges of today and one of long ago, all of one card and customer, and their tiles."""
    clear(documents)
    for entity in Entity:
        documents[entity.collection].delete_many({})
    topics = Topics()
    topics.write("currencies", "c", rows.currency("eur", 2))
    topics.write("card_fingerprints", "c", rows.card())
    topics.write("payment_methods", "c", rows.method(30))
    payer = {"payment_method_id": rows.uuid(30), "customer_id": rows.uuid(2)}
    for number, created in ((1, NOW), (2, NOW), (3, NOW - 400 * DAY)):
        topics.write("charges", "c", rows.charge(number, created=created, **payer))
    take(documents, topics.written, features=TilesOfCharges(documents))
    return mongod_settings.model_copy(update={"mongodb_database": documents.name})


def verdict(check: Any, settings: Settings) -> Any:
    return check(settings)


def test_lag_within_its_limits_passes_and_one_table_behind_fails_and_is_named(
    sound: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lags = dict.fromkeys(TABLES, Lag(10, 1.0))
    monkeypatch.setattr(checks, "mongodb_lag", lambda *_: lags)
    assert verdict(checks.documents_keep_up, sound).passed
    lags["refunds"] = Lag(1, LONGEST_UNREAD.total_seconds() + 1)
    failed = verdict(checks.documents_keep_up, sound)
    assert not failed.passed
    assert failed.metadata["tables_behind"].value == ["refunds"]
    # Left out of the lag: its topic is missing.
    del lags["refunds"]
    failed = verdict(checks.documents_keep_up, sound)
    assert (failed.passed, failed.metadata["tables_without_topic"].value) == (False, ["refunds"])


def test_a_dead_letter_fails_until_it_is_triaged(sound: Settings, documents: Documents) -> None:
    assert verdict(checks.dead_letters_are_triaged, sound).passed
    letter = dead_letters.Letter("charges", "payments.charges", "a", 0, 1, "it is not JSON", 9, b"record")
    with documents.client.start_session() as session, session.start_transaction():
        dead_letters.keep(session, documents, [letter])
    failed = verdict(checks.dead_letters_are_triaged, sound)
    assert (failed.passed, failed.metadata["untriaged"].value) == (False, 1)
    dead_letters.triage(documents, letter.id, "looked after")
    assert verdict(checks.dead_letters_are_triaged, sound).passed


def test_a_charge_that_waits_for_its_intent_fails_only_after_a_while(sound: Settings, documents: Documents) -> None:
    topics = Topics()
    topics.write("charges", "c", rows.charge(9, created=NOW, payment_intent_id=rows.uuid(99)))
    take(documents, topics.written)
    assert verdict(checks.charges_become_complete, sound).passed
    long_ago = datetime.now(UTC) - checks.LONGEST_INCOMPLETE - timedelta(seconds=1)
    documents["charges"].update_many({"incomplete_since": {"$exists": True}}, {"$set": {"incomplete_since": long_ago}})
    failed = verdict(checks.charges_become_complete, sound)
    assert (failed.passed, failed.metadata["incomplete"].value) == (False, 1)


SLOT = f"slots.{slot_name(NOW)}"
DAMAGES: dict[str, Any] = {
    "one payment too many": {"$inc": {"payments": 1}},
    "one declined too many": {"$inc": {"declined": 1}},
    "an amount that differs by one": {"$inc": {"amount": -1}},
    "one without an amount too many": {"$inc": {"unconverted": 1}},
    "one fraud too many": {"$inc": {"fraud": 1}},
    "a slot that counts one too many": {"$inc": {f"{SLOT}.payments": 1}},
    "a slot that is gone": {"$unset": {SLOT: ""}},
}


@pytest.mark.parametrize("entity", Entity)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_day_whose_sums_are_damaged_fails(sound: Settings, documents: Documents, entity: Entity, damage: str) -> None:
    check = checks.tile_checks[list(Entity).index(entity)]
    passed = verdict(check, sound)
    assert (passed.passed, passed.metadata["days_compared"].value) == (True, 2)
    documents[entity.collection].update_many({"_id.day": NOW // DAY}, DAMAGES[damage])
    failed = verdict(check, sound)
    assert (failed.passed, failed.metadata["days_that_differ"].value) == (False, 1)


def test_a_day_that_is_gone_and_one_on_which_nobody_paid_fail(sound: Settings, documents: Documents) -> None:
    merchants = checks.tile_checks[list(Entity).index(Entity.MERCHANT)]
    tiles = documents["merchant_features"]
    (today,) = tiles.find({"_id.day": NOW // DAY})
    tiles.delete_one({"_id": today["_id"]})
    assert verdict(merchants, sound).metadata["days_that_differ"].value == 1
    tiles.insert_many([today, today | {"_id": today["_id"] | {"day": NOW // DAY - 1}}])
    assert verdict(merchants, sound).metadata["days_that_differ"].value == 1


def test_of_many_days_a_sample_is_compared_and_no_more_once_many_payments_were_read(
    sound: Settings, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics()
    for number in range(100, 300):
        topics.write("charges", "c", rows.charge(number, created=NOW, merchant_id=rows.uuid(number)))
    take(documents, topics.written, features=TilesOfCharges(documents))
    # Less than a twentieth: the server picks at random, and does not sort all.
    monkeypatch.setattr(audit_module, "STORED_DAYS", 4)
    monkeypatch.setattr(audit_module, "CHARGES_LOOKED_AT", 4)
    assert 4 <= audit(documents, Entity.MERCHANT).compared <= 8
    monkeypatch.setattr(audit_module, "MOST_PAYMENTS", 0)
    assert audit(documents, Entity.MERCHANT) == (1, 0)


def test_a_late_payment_of_a_day_that_has_expired_begins_no_part_of_it(sound: Settings, documents: Documents) -> None:
    merchants = checks.tile_checks[list(Entity).index(Entity.MERCHANT)]
    long_ago = {"_id.day": {"$lt": NOW // DAY - 100}}
    documents["merchant_features"].delete_many(long_ago)
    topics = Topics()
    topics.write("charges", "c", rows.charge(4, created=NOW - 400 * DAY))
    begun = datetime.now(UTC) - timedelta(days=60)
    documents["sink"].insert_one({"_id": "mongodb", "version": 0, "offsets": {}, "begun_at": begun})
    take(documents, topics.written, features=TilesOfCharges(documents))
    documents["sink"].delete_many({})
    assert documents["merchant_features"].count_documents(long_ago) == 0
    assert verdict(merchants, sound).passed


def test_a_day_that_has_expired_is_no_difference(sound: Settings, documents: Documents) -> None:
    documents["merchant_features"].delete_many({"_id.day": {"$lt": NOW // DAY - 100}})
    assert verdict(checks.tile_checks[list(Entity).index(Entity.MERCHANT)], sound).passed
