"""The sink of MongoDB killed at every named point, with the real documents and features of a simulated company.

Two seeds in `make test`; `make faults` runs twenty (`FAULT_SEEDS`).
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
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
# Passed by whoever tells Dagster of it: a run, or the continuous mode.
REPORT_POINTS: tuple[Point, ...] = ("reporting", "reported")
# Only the clock's.
OF_THE_CLOCK = ("expires", "incomplete_since")
# Of each of two drains at once.
DEATHS = 4
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
    early = [point for point in POINTS if point not in (*LAST_POINTS, *REPORT_POINTS)]
    deaths = [(point, chance.randint(1, 6)) for point in chance.sample(early, len(early))]
    deaths += [(point, 1) for point in LAST_POINTS]
    for point, times in deaths:
        die(settings, DRAIN, point, times)
    for point in REPORT_POINTS:
        die(settings, RUN, point, 1)
    drain_the_rest(settings)
    assert_same(contents(settings), undisturbed)


@pytest.mark.parametrize("point", REPORT_POINTS)
def test_a_stream_killed_at_its_report_leaves_what_its_successor_makes_whole(
    company: Settings, undisturbed: Mapping[str, Any], point: Point
) -> None:
    settings = company.model_copy(update={"mongodb_database": f"stream_{point}"})
    die(settings, STREAM, point, 1)
    drain_the_rest(settings)
    assert_same(contents(settings), undisturbed)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_two_drains_at_once_that_are_killed_and_come_back_every_change_is_taken_once(
    company: Settings, undisturbed: Mapping[str, Any], seed: int
) -> None:
    settings = company.model_copy(update={"mongodb_database": f"two_{seed}"})
    ended = python(settings, SMALL_BATCHES + TWO_DRAINS, str(seed), str(DEATHS))
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = Counter(ended.stdout.split())
    assert_same(contents(settings), undisturbed)
    # The guard of each row would hide in the documents what offsets let through twice.
    assert not told["one:stale"] + told["other:stale"], told
    # They met, and who got on was killed.
    assert min(told["one:killed"] + told["other:killed"], told["one:lost"] + told["other:lost"]) > 0, told


def drain_the_rest(settings: Settings) -> None:
    """What was killed is begun again and nobody disturbs it."""
    with open_store(settings) as store:
        drain(settings, TABLES, store=store)


def assert_same(made: Mapping[str, Any], undisturbed: Mapping[str, Any]) -> None:
    """Document for document."""
    assert made.keys() == undisturbed.keys()
    for collection, documents in undisturbed.items():
        differing = [
            id_ for id_ in documents.keys() | made[collection] if documents.get(id_) != made[collection].get(id_)
        ]
        assert not differing, f"{collection}: {len(differing)} of {len(documents)} differ"


def die(settings: Settings, work: str, point: Point, times: int) -> None:
    """Work in a process of its own, killed when it passes the point for the given time."""
    died = python(settings, SMALL_BATCHES + AT + work, point, str(times))
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]


def python(settings: Settings, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, on this stack, when it has ended."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | environment(settings),
        timeout=LIMIT_S,
        check=False,
        capture_output=True,
        text=True,
    )


SMALL_BATCHES = """
import os, signal, sys
from functools import partial
from stripe_platform.cdc import reader
from stripe_platform.features import batch, intake
from stripe_platform.settings import load_settings

# Some of a batch is composed while some is written.
batch._WRITTEN_AT_ONCE = 50

reader.MESSAGES_AT_ONCE = 100
intake.MOST_RECORDS = 200
settings = load_settings()
"""
AT = """
passed = []

def at(point):
    passed.append(point)
    if passed.count(sys.argv[1]) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""
DRAIN = """
from stripe_platform.features.drain import drain
from stripe_platform.features.sink import TABLES, open_store

with open_store(settings) as store:
    drain(settings, TABLES, store=store, at=at)
"""
RUN = """
import dagster as dg
from stripe_platform.features import assets

assets.results = partial(assets.results, at=at)
dg.materialize([assets.collections], resources={"settings": settings})
"""
STREAM = """
from stripe_platform.stream import run, watching

watching.REPORTS_LOOKED_AT_EVERY_S = 0.05
run.report = partial(run.report, at=at)
run.run_stream(settings)
"""
# Two lanes of drains, each killed a few times and begun again; forked before there is a thread or a connection.
TWO_DRAINS = """
import math, random
from collections import Counter
from dataclasses import replace
from stripe_platform.features import drain as module
from stripe_platform.features.offsets import LostRace
from stripe_platform.features.sink import TABLES, FeatureProjector, open_store

deaths, lanes = Counter(), {}

def drain_here(lane, dies_after, chance):
    def tell(word):
        os.write(1, f"{lane}:{word}\\n".encode())

    class Watched(FeatureProjector):
        def project(self, *arguments):
            done = super().project(*arguments)
            if done.stale:
                tell("stale")
            return done

    class Racing(module._Drain):
        def go_on(self):
            try:
                super().go_on()
            except LostRace:
                tell("lost")
                raise

    committed = []

    def at(point):
        if point == "committed":
            committed.append(point)
            tell(point)
        # At any point, but only who got on: else one of both might never.
        if len(committed) >= dies_after and chance.random() < 0.3:
            tell("killed")
            os.kill(os.getpid(), signal.SIGKILL)

    module._Drain = Racing
    with open_store(settings) as store:
        module.drain(settings, TABLES, store=replace(store, projector=Watched()), at=at)

def start(lane):
    chance = random.Random(f"{sys.argv[1]} {lane} {deaths[lane]}")
    dies_after = chance.randint(1, 3) if deaths[lane] < int(sys.argv[2]) else math.inf
    child = os.fork()
    if child == 0:
        drain_here(lane, dies_after, chance)
        os._exit(0)
    lanes[child] = lane

start("one")
start("other")
while lanes:
    child, status = os.wait()
    lane, code = lanes.pop(child), os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        deaths[lane] += 1
        start(lane)
    elif code:
        sys.exit(code)
"""
