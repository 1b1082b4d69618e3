"""Dead letters replayed into the documents of production, on a real mongod: what was deleted since stays deleted."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from stripe_platform.features import dead_letters
from stripe_platform.features import replay as replay_module
from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.dead_letters import Letter
from stripe_platform.features.offsets import TableOffsets, begin
from stripe_platform.features.projection import Store
from stripe_platform.features.rebuild import GROUPS, rebuild
from stripe_platform.features.replay import BEFORE_GAP, LATE_AFTER, replay, told
from stripe_platform.features.sink import open_store
from stripe_platform.features.transaction import INTERRUPTED
from stripe_platform.features.writer import Writer
from stripe_platform.features.writing import MARKER_LIFE
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.features import logs, rows
from stripe_platform_tests.integration.features.logs import Logs

CHARGE = rows.charge(10)
# A row of each kind of document; what it lies in besides its own collection.
ROWS: Mapping[str, rows.Row] = {
    "customers": rows.customer(2),
    "charges": CHARGE,
    "charge_outcomes": rows.outcome(CHARGE),
    "refunds": rows.refund(40, CHARGE),
    "payment_methods": rows.method(30),
}


@pytest.fixture
def settings(mongod_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a database of the test's own, and tables as PostgreSQL would tell them."""
    monkeypatch.setattr(
        replay_module, "table_columns", lambda _: {table: logs.columns(table) for table in logs.SAMPLES}
    )
    update = {"mongodb_database": f"test_{uuid4().hex}", "toast_placeholder": SecretStr("-")}
    return mongod_settings.model_copy(update=update)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened
        opened.documents.client.drop_database(opened.documents.name)


@pytest.fixture
def lake(settings: Settings, tmp_path: Any) -> Logs:
    return Logs(settings.model_copy(update={"stripe_platform_home": tmp_path}))


class Stream:
    """Applies changes as the drain does, and keeps some of them aside."""

    def __init__(self, settings: Settings, store: Store, lake: Logs) -> None:
        self._settings, self._store, self._lake = settings, store, lake
        self.topics = rows.Topics()

    def take(self, table: str, op: str, row: rows.Row) -> Change:
        change = self.topics.write(table, op, row)
        self._lake.write([change])
        self._write([change], change, lambda _: None)
        return change

    def keep(self, table: str, op: str, row: rows.Row) -> str:
        """The id of a letter with this change."""
        change = self.topics.write(table, op, row)
        self._lake.write([change])
        source = self._lake.source(self._settings, begin(self._store.documents), [table]).logs[table]
        event = source.event_of(change.partition, change.offset)
        letter = Letter.of(table, f"{table}-topic", event, "of a test")
        self._write([], change, lambda session: dead_letters.keep(session, self._store.documents, [letter]))
        return letter.id

    def _write(self, changes: list[Change], last: Change, before: Callable[[ClientSession], None]) -> None:
        start = dict.fromkeys(logs.partitions(last.table), 0) | {0: last.offset + 1}
        moved = {last.table: TableOffsets(f"{last.table}-topic", start, logs.kinds(last.table))}
        writer = Writer(self._settings, self._store, begin(self._store.documents).version)
        writer.write(changes, moved, before=before, after=lambda _: None)

    def rebuild(self, table: str) -> None:
        rebuild(self._settings, self._store, [table], sources=self._lake.source)


@pytest.fixture
def stream(settings: Settings, store: Store, lake: Logs) -> Stream:
    return Stream(settings, store, lake)


def pass_time(documents: Documents, time: timedelta) -> None:
    """As if this much time had passed: letters are older, and markers that would have expired are gone."""
    for letter in documents[dead_letters.COLLECTION].find():
        aged = {"seen_at": letter["seen_at"] - time}
        documents[dead_letters.COLLECTION].update_one({"_id": letter["_id"]}, {"$set": aged})
    for name in rows.COLLECTIONS:
        documents[name].delete_many({"expires": {"$lt": datetime.now(UTC) + time}})


def contents(documents: Documents) -> Mapping[str, Any]:
    """Every document, tiles too."""
    return {name: list(documents[name].find().sort("_id", 1)) for group in GROUPS for name in group.collections}


@pytest.mark.parametrize("table", ROWS)
@pytest.mark.parametrize("days", [1, 20])
def test_what_was_deleted_after_it_became_a_letter_stays_deleted(
    settings: Settings, store: Store, stream: Stream, table: str, days: int
) -> None:
    row = ROWS[table]
    stream.take(table, "c", row)
    letter = stream.keep(table, "u", row)
    stream.take(table, "d", row)
    pass_time(store.documents, timedelta(days=days))
    before = contents(store.documents)

    replayed = replay(settings, store)

    assert contents(store.documents) == before
    if timedelta(days=days) < MARKER_LIFE or table in ("charge_outcomes", "refunds"):
        # Of what belongs to a charge the positions stay with it.
        assert (replayed.applied, replayed.stale, replayed.refused) == (0, 1, {})
    else:
        assert (replayed.applied, list(replayed.refused)) == (0, [letter])
        assert f"stripe-platform rebuild {table}" in told(replayed)


@pytest.mark.parametrize("is_deleted", [True, False])
def test_after_the_rebuild_that_it_asks_for_an_old_letter_is_replayed(
    settings: Settings, store: Store, stream: Stream, is_deleted: bool
) -> None:
    stream.take("customers", "c", rows.customer(3))
    letter = stream.keep("customers", "c", rows.customer(2))
    if is_deleted:
        stream.take("customers", "d", rows.customer(2))
    pass_time(store.documents, MARKER_LIFE)
    assert list(replay(settings, store).refused) == [letter]

    stream.rebuild("customers")
    replayed = replay(settings, store)

    assert (replayed.applied, replayed.stale, replayed.refused) == (not is_deleted, is_deleted, {})
    here = store.documents["customers"].count_documents({"_id": f"cus_{rows.hex_digits(2)}", "deleted": None})
    assert here == (not is_deleted)


def test_a_letter_from_before_lost_changes_is_refused_once_the_rows_were_read_again(
    settings: Settings, store: Store, stream: Stream, lake: Logs
) -> None:
    letter = stream.keep("customers", "c", rows.customer(2))
    # Its delete was lost.
    lake.log("customers").record_gaps({0: 4}, {0: 5})
    stream.topics._offsets["customers"] = 4
    stream.take("customers", "r", rows.customer(3))
    stream.rebuild("customers")

    replayed = replay(settings, store)

    assert replayed.refused == {letter: BEFORE_GAP}
    assert [found["_id"] for found in store.documents["customers"].find()] == [f"cus_{rows.hex_digits(3)}"]


def test_an_old_letter_of_a_row_that_is_known_is_replayed_and_so_is_a_delete(
    settings: Settings, store: Store, stream: Stream
) -> None:
    stream.take("customers", "c", rows.customer(2))
    stream.keep("customers", "u", rows.customer(2, country="FR"))
    stream.keep("customers", "d", rows.customer(3))
    pass_time(store.documents, LATE_AFTER)

    assert replay(settings, store).applied == 2

    found = store.documents["customers"].find_one({"_id": f"cus_{rows.hex_digits(2)}"})
    assert found is not None
    assert found["country"] == "FR"


def test_a_commit_that_was_done_although_it_was_interrupted_is_no_unknown_letter(
    settings: Settings, store: Store, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.keep("customers", "c", rows.customer(2))
    commit = ClientSession.commit_transaction
    interrupted: list[ClientSession] = []

    def commit_and_be_interrupted(session: ClientSession) -> None:
        commit(session)
        if not interrupted:
            interrupted.append(session)
            raise OperationFailure("interrupted", INTERRUPTED)

    monkeypatch.setattr(ClientSession, "commit_transaction", commit_and_be_interrupted)
    replayed = replay(settings, store)

    assert interrupted
    assert (replayed.applied, replayed.gone, replayed.refused) == (0, 1, {})
    assert "1 replayed already" in told(replayed)
    assert store.documents["customers"].count_documents({}) == 1
