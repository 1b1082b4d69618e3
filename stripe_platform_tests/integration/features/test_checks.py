"""Each check of MongoDB shown passing and failing, on a real mongod."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stripe_platform.cdc.lag import LONGEST_UNREAD, Lag
from stripe_platform.features import checks, dead_letters
from stripe_platform.features.connection import Documents
from stripe_platform.features.payments import Entity
from stripe_platform.features.sink import TilesOfCharges
from stripe_platform.features.windows import DAY
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.features import rows
from stripe_platform_tests.integration.features.rows import Topics, clear, take

NOW = int(datetime.now(UTC).timestamp() * 1_000_000)


@pytest.fixture
def sound(mongod_settings: Settings, documents: Documents) -> Settings:
    """A store with two charges of today and one of long ago, all complete, and their tiles."""
    clear(documents)
    for entity in Entity:
        documents[entity.collection].delete_many({})
    topics = Topics()
    topics.write("currencies", "c", rows.currency("eur", 2))
    for number, created in ((1, NOW), (2, NOW), (3, NOW - 400 * DAY)):
        topics.write("charges", "c", rows.charge(number, created=created))
    take(documents, topics.written, features=TilesOfCharges(documents))
    return mongod_settings.model_copy(update={"mongodb_database": documents.name})


def verdict(check: Any, settings: Settings) -> Any:
    return check(settings)


def test_lag_within_its_limits_passes_and_one_table_behind_fails_and_is_named(
    sound: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lags = {"charges": Lag(10, 1.0), "refunds": Lag(0, 0.0)}
    monkeypatch.setattr(checks, "mongodb_lag", lambda *_: lags)
    assert verdict(checks.documents_keep_up, sound).passed
    lags["refunds"] = Lag(1, LONGEST_UNREAD.total_seconds() + 1)
    failed = verdict(checks.documents_keep_up, sound)
    assert not failed.passed
    assert failed.metadata["tables_behind"].value == ["refunds"]


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


@pytest.mark.parametrize("change", [{"$inc": {"payments": 1}}, None])
def test_a_day_of_a_merchant_that_counts_one_payment_too_many_or_is_gone_fails(
    sound: Settings, documents: Documents, change: dict[str, Any] | None
) -> None:
    merchants = checks.tile_checks[list(Entity).index(Entity.MERCHANT)]
    assert verdict(merchants, sound).passed
    today = {"_id.day": NOW // DAY}
    if change is None:
        documents["merchant_features"].delete_many(today)
    else:
        documents["merchant_features"].update_many(today, change)
    failed = verdict(merchants, sound)
    assert (failed.passed, failed.metadata["days_that_differ"].value) == (False, 1)


def test_a_day_that_has_expired_is_no_difference(sound: Settings, documents: Documents) -> None:
    documents["merchant_features"].delete_many({"_id.day": {"$lt": NOW // DAY - 100}})
    assert verdict(checks.tile_checks[list(Entity).index(Entity.MERCHANT)], sound).passed
