"""A mongod alone, for what needs no other server: it is up in two seconds."""

import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from stripe_platform.local.mongodb import MONGODB
from stripe_platform_tests.conftest import NewSettings

LIMIT_SECONDS = 60


@pytest.fixture(scope="session")
def mongodb(new_settings: NewSettings) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client of a replica set of one node, empty."""
    settings = new_settings()
    MONGODB.prepare(settings)
    # By default it looks for what has expired once a minute.
    command = (*MONGODB.program(settings).command, "--setParameter=ttlMonitorSleepSecs=1")
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while (problem := MONGODB.why_not_ready(settings)) is not None:
            assert server.poll() is None, f"mongod ended with {server.returncode}"
            assert time.monotonic() < deadline, problem
        with MongoClient[dict[str, Any]](
            settings.mongodb_host, settings.mongodb_port, directConnection=True, tz_aware=True
        ) as client:
            yield client
    finally:
        server.terminate()
        server.wait(LIMIT_SECONDS)


@pytest.fixture(scope="module")
def database(mongodb: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """A database of the module's own."""
    name = f"test_{uuid.uuid4().hex}"
    yield mongodb[name]
    mongodb.drop_database(name)
