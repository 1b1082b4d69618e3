"""A mongod alone, which is up in two seconds, and databases on it."""

import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from stripe_platform.features.collections import ensure_collections
from stripe_platform.features.connection import Documents, connect
from stripe_platform.local.mongodb import MONGODB
from stripe_platform.settings import Settings
from stripe_platform_tests.conftest import NewSettings

READY_LIMIT_S = 60
# What has expired leaves within a second instead of a minute.
OFTEN = ("--setParameter", "ttlMonitorSleepSecs=1")


@pytest.fixture(scope="session")
def mongod_settings(lasting_settings: NewSettings) -> Iterator[Settings]:
    """Settings of a home whose mongod runs; no other server does."""
    settings = lasting_settings()
    MONGODB.prepare(settings)
    command = (*MONGODB.program(settings).command, *OFTEN)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as mongod:
        try:
            deadline = time.monotonic() + READY_LIMIT_S
            while (problem := MONGODB.why_not_ready(settings)) is not None:
                assert mongod.poll() is None, problem
                assert time.monotonic() < deadline, problem
            yield settings
        finally:
            mongod.terminate()


@pytest.fixture(scope="session")
def mongodb(mongod_settings: Settings) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client of that mongod."""
    with connect(mongod_settings) as database:
        yield database.client


@pytest.fixture(scope="module")
def database(mongodb: MongoClient[dict[str, Any]]) -> Iterator[Documents]:
    """A database of the module's own, empty."""
    name = f"test_{uuid.uuid4().hex}"
    yield mongodb[name]
    mongodb.drop_database(name)


@pytest.fixture(scope="module")
def documents(mongod_settings: Settings) -> Iterator[Documents]:
    """A database of the module's own with all collections, empty."""
    settings = mongod_settings.model_copy(update={"mongodb_database": f"test_{uuid.uuid4().hex}"})
    with connect(settings) as database:
        ensure_collections(database)
        yield database
        database.client.drop_database(database.name)
