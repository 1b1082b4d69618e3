"""The drain into MongoDB killed at every named point, with the real documents and features of a simulated company.

Two seeds in `make test`; `make faults` runs twenty (`FAULT_SEEDS`).
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from stripe_platform.cdc.cut import make_cut
from stripe_platform.features.collections import COLLECTIONS
from stripe_platform.features.connection import connect
from stripe_platform.features.drain import drain
from stripe_platform.features.intake import Point
from stripe_platform.features.sink import TABLES, open_store
from stripe_platform.local.environment import environment
from stripe_platform.oltp.simulator.history import simulate_history
from stripe_platform.oltp.simulator.live import run_live
from stripe_platform.settings import Settings

SEEDS = range(1, 1 + int(os.environ.get("FAULT_SEEDS", "2")))
POINTS: tuple[Point, ...] = get_args(Point)
# Passed once for every drain, when all is read.
LAST_POINTS: tuple[Point, ...] = ("publishing", "published")
# Only the clock's.
OF_THE_CLOCK = ("expires", "incomplete_since")
LIMIT_S = 240.0


@pytest.fixture(scope="module")
def company(new_platform: Callable[[], Settings]) -> Settings:
    """A past by COPY, and a present with its captures, refunds, disputes and corrections."""
    settings = new_platform()
    simulate_history(settings, 300, 10, seed=3, until=datetime.now(UTC).date())
    run_live(settings, 40.0, timedelta(seconds=5), 4, threading.Event())
    make_cut(settings, timeout=timedelta(seconds=LIMIT_S))
    return settings


@pytest.fixture(scope="module")
def undisturbed(company: Settings) -> Mapping[str, Any]:
    """What one drain makes of it, which nobody disturbs."""
    settings = company.model_copy(update={"mongodb_database": "undisturbed"})
    with open_store(settings) as store:
        report = drain(settings, TABLES, store=store)
    assert (report.lag, report.dead_letters) == (0, 0)
    made = contents(settings)
    assert min(len(made[name]) for name in ("charges", "card_features", "merchant_features", "events")) > 0
    assert any(charge["refunds"] for charge in made["charges"].values())
    return made


def contents(settings: Settings) -> Mapping[str, Any]:
    """{collection: {id: document without what is the clock's}} and the sink's offsets."""
    with connect(settings) as documents:
        made: dict[str, Any] = {
            collection.name: {
                json.dumps(document.pop("_id")): {k: v for k, v in document.items() if k not in OF_THE_CLOCK}
                for document in documents[collection.name].find()
            }
            for collection in COLLECTIONS
            if collection.name not in ("sink", "dead_letters", "dead_letter_parts", "fraud_decisions")
        }
        (sink,) = documents["sink"].find()
    return made | {"offsets": {table: taken["next"] for table, taken in sink["offsets"].items()}}


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_every_point_the_collections_are_those_of_an_undisturbed_run(
    company: Settings, undisturbed: Mapping[str, Any], seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    settings = company.model_copy(update={"mongodb_database": f"killed_{seed}"})
    early = [point for point in POINTS if point not in LAST_POINTS]
    deaths = [(point, chance.randint(1, 6)) for point in chance.sample(early, len(early))]
    deaths += [(point, 1) for point in LAST_POINTS]
    for point, times in deaths:
        drain_and_die(settings, point, times)
    with open_store(settings) as store:
        drain(settings, TABLES, store=store)
    killed = contents(settings)
    for collection, documents in undisturbed.items():
        differing = [
            id_ for id_ in documents.keys() | killed[collection] if documents.get(id_) != killed[collection].get(id_)
        ]
        assert not differing, f"{collection}: {len(differing)} of {len(documents)} differ"


def drain_and_die(settings: Settings, point: Point, times: int) -> None:
    """A drain in a process of its own, killed when it passes the point for the given time."""
    died = subprocess.run(
        [sys.executable, "-c", DRAIN_AND_DIE, point, str(times)],
        env=os.environ | environment(settings),
        timeout=LIMIT_S,
        check=False,
        capture_output=True,
        text=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]


DRAIN_AND_DIE = """
import os, signal, sys
from stripe_platform.cdc import reader
from stripe_platform.features import intake
from stripe_platform.features.drain import drain
from stripe_platform.features.sink import TABLES, open_store
from stripe_platform.settings import load_settings

reader.MESSAGES_AT_ONCE = 100
intake.MOST_RECORDS = 200
passed = []

def at(point):
    passed.append(point)
    if passed.count(sys.argv[1]) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

settings = load_settings()
with open_store(settings) as store:
    drain(settings, TABLES, store=store, at=at)
"""
