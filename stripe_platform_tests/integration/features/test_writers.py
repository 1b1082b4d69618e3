"""Writers that come and go on a real mongod: what they leave behind, and what they find."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

from stripe_platform.features.connection import Documents, connect
from stripe_platform.features.sink import open_store
from stripe_platform.features.transaction import WRITERS
from stripe_platform.settings import Settings

# Half of the time for which the server keeps an open transaction.
LIMIT_SECONDS = 30


@pytest.fixture
def settings(mongod_settings: Settings) -> Settings:
    return mongod_settings.model_copy(update={"mongodb_database": f"test_{uuid4().hex}"})


@pytest.fixture
def database(settings: Settings) -> Iterator[Documents]:
    """The database of the writers, for the test to look at."""
    with connect(settings) as documents:
        yield documents
        documents.client.drop_database(documents.name)


class Stopped(Exception):
    """How a writer ends that meets an error of its own."""


@pytest.mark.parametrize("is_reachable", [True, False])
def test_a_writer_that_fails_is_forgotten_and_its_own_error_is_told(
    settings: Settings, database: Documents, monkeypatch: pytest.MonkeyPatch, is_reachable: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise AutoReconnect("lost")

    def write_and_fail() -> None:
        with open_store(settings):
            assert database[WRITERS].count_documents({}) == 1
            if not is_reachable:
                monkeypatch.setattr(Collection, "delete_one", refuse)
            raise Stopped

    with pytest.raises(Stopped):
        write_and_fail()
    assert database[WRITERS].count_documents({}) == (0 if is_reachable else 1)


def killed(database: Documents, session: ClientSession) -> None:
    """Leave what a writer leaves that is killed inside its transaction."""
    database[WRITERS].insert_one({"_id": session.session_id["id"]})
    session.start_transaction()
    database["merchants"].delete_one({"_id": "any"}, session=session)


def test_an_index_is_altered_at_once_although_a_killed_writer_left_a_transaction(
    settings: Settings, database: Documents
) -> None:
    with open_store(settings):
        pass
    database["merchants"].drop_index("expires_ttl")
    database["merchants"].create_index("expires", name="expires_ttl", expireAfterSeconds=60)
    with database.client.start_session() as session:
        killed(database, session)
        began = time.monotonic()
        with open_store(settings):
            assert time.monotonic() - began < LIMIT_SECONDS
    assert database["merchants"].index_information()["expires_ttl"]["expireAfterSeconds"] == 0
