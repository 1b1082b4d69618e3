"""Topic to MongoDB: our drain and the official MongoDB sink connector on the same topic, side by side in one run.

    uv run --all-extras python benchmarks/mongodb_upserts.py [--payments 300000] [--repeats 3] [--peer-only]

A company's history goes through PostgreSQL and Debezium into the topic of charges once. Then each contender reads the
whole topic into an empty database, in turn, several times: one document per charge, acknowledged by the majority's
journal. One clock for all: from the first document that is in the store to the last. Our charges have their indexes and
validators; with features off, without the indexes that only features are read by. The sink connector has none of them,
and the same indexes in a row of its own. It has the best of several tunings, each tried on the beginning of the topic.
Prints Markdown; stops if a store does not hold what PostgreSQL holds. Needs about 6 GB of disk in the temporary folder
for 300,000 payments.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

from benchmarks.mongodb_sink_connector import COLLECTION, TEXT, VERSION, SinkWorker, Tuning, sink_worker
from benchmarks.spine import CATCH_UP_LIMIT, own_stack, spread
from benchmarks.stored_charges import Fingerprint, Row, fingerprint, in_postgres, of_ours, of_sink_connector
from stripe_platform.cdc.cut import make_cut
from stripe_platform.features import collections
from stripe_platform.features.drain import drain
from stripe_platform.features.payments import PAYMENT_INDEXES
from stripe_platform.features.sink import open_store
from stripe_platform.local.pin import DEBEZIUM, KAFKA
from stripe_platform.oltp.simulator.history import simulate_history
from stripe_platform.settings import Settings

Documents = Collection[dict[str, Any]]

DAYS = 30
LOOK_EVERY_S = 0.01
LIMIT_S = 600
TRIED_DOCUMENTS = 60_000
# What a charge embeds; drained before its clock starts, so that its documents are whole.
PARENTS = ("currencies", "exchange_rates", "card_fingerprints", "payment_methods", "payment_intents")
# One after the other, each with the best of those before it.
TRIALS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("max_poll_records", (500, 2_000, 5_000, 10_000)),
    ("max_batch_size", (0, 500, 1_000, 2_000)),
    ("tasks_max", (1, 2, 4)),
    ("bulk_write_ordered", (True, False)),
    ("converter", (Tuning.converter, TEXT)),
)
# Fields of our documents that the sink connector names otherwise: the columns' names, the key within _id.
FIELD_OF = {
    "created": "_id.created",
    "merchant": "merchant_id",
    "customer": "customer_id",
    "payment_method": "payment_method_id",
}


def our_drain(settings: Settings, tables: Sequence[str], *, features: bool) -> None:
    """Apply all that the tables' topics hold to the documents; the one place that knows how our sink is called."""
    with open_store(settings, features=features) as store:
        if not features:
            for index in PAYMENT_INDEXES:
                store.documents[COLLECTION].drop_index(index.document["name"])
        while drain(settings, tables, store=store).lag:
            pass


def our_indexes() -> Iterable[tuple[list[tuple[str, Any]], dict[str, Any]]]:
    """(keys, options) of the indexes on our charges that are not for features, under the sink connector's names."""
    (charges,) = (collection for collection in collections.COLLECTIONS if collection.name == COLLECTION)
    for index in (each for each in charges.indexes if each not in PAYMENT_INDEXES):
        options = dict(index.document)
        yield [(FIELD_OF.get(name, name), kind) for name, kind in options.pop("key").items()], options


# In a process of its own, so that its memory is its own.
DRAIN = """
import json, resource, sys, time
from benchmarks.mongodb_upserts import our_drain
from stripe_platform.settings import load_settings

began = time.monotonic()
our_drain(load_settings(), sys.argv[2:], features=sys.argv[1] == "features")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"whole call": time.monotonic() - began, "peak memory of its process": peak / 1024}))
"""


@dataclass
class Benchmark:
    """The stack, the topic's charges, and what has been measured so far by name."""

    settings: Settings
    client: MongoClient[dict[str, Any]]
    worker: SinkWorker
    charges: Fingerprint
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _databases: int = 0

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """The name of a database that nobody has used; dropped at the end."""
        self._databases += 1
        name = f"benchmark_{self._databases}"
        try:
            yield name
        finally:
            self.client.drop_database(name)

    def try_out(self, tuning: Tuning, documents: int) -> float:
        """Documents per second of the sink connector up to so many of the topic's."""
        with self.empty_database() as database, self.worker.connector(database, tuning) as name:
            return stopwatch(self.client[database][COLLECTION], documents, lambda: self.worker.check(name))

    def measure_sink_connector(self, what: str, tuning: Tuning, *, indexed: bool) -> None:
        """The whole topic by the sink connector."""
        with self.empty_database() as database:
            target = self.client[database][COLLECTION]
            for keys, options in our_indexes() if indexed else ():
                target.create_index(keys, **options)
            with self.worker.connector(database, tuning) as name:
                rate = stopwatch(target, self.charges.count, lambda: self.worker.check(name))
            self._check(what, map(of_sink_connector, target.find({})))
        self.figures[what].append(rate)

    def measure_ours(self, what: str, *, features: bool) -> None:
        """The whole topic by our drain; with features, what charges embed is there before them."""
        with self.empty_database() as database:
            if features:
                with self._drain(database, "features", *PARENTS) as process:
                    finish(process)
            target = self.client[database][COLLECTION]
            with self._drain(database, "features" if features else "plain", "charges") as process:
                rate = stopwatch(target, self.charges.count, lambda: check_process(process))
                report = finish(process)
            self._check(what, map(of_ours, target.find({})))
        self.figures[what].append(rate)
        for name, value in report.items():
            self.figures[f"{what}: {name}"].append(value)

    @contextmanager
    def _drain(self, database: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, "-c", DRAIN, *arguments],
            env={**os.environ, "MONGODB_DATABASE": database},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _check(self, what: str, rows: Iterable[Row]) -> None:
        found = fingerprint(rows)
        if found != self.charges:
            raise SystemExit(f"{what}: the store holds {found}, PostgreSQL {self.charges}")


def main() -> None:
    """Fill the topic, find the best tuning, run all measurements and print them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--payments", type=int, default=300_000)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--peer-only", action="store_true", help="the sink connector alone")
    options = arguments.parse_args()
    with own_stack() as settings:
        charges = fill_topic(settings, options.payments)
        client: MongoClient[dict[str, Any]] = MongoClient(
            settings.mongodb_host, settings.mongodb_port, directConnection=True
        )
        with client, sink_worker(settings) as worker:
            benchmark = Benchmark(settings, client, worker, charges)
            load = os.getloadavg()
            best, trials = best_tuning(benchmark, min(charges.count, TRIED_DOCUMENTS))
            for _ in range(options.repeats):
                measure_all(benchmark, best, peer_only=options.peer_only)
            print_report(benchmark, best, trials, load)


def fill_topic(settings: Settings, payments: int) -> Fingerprint:
    """Bring a history through PostgreSQL and Debezium; what PostgreSQL then holds of charges."""
    # The tables' snapshots first: a row taken while it streams would be in the topic twice.
    make_cut(settings, timeout=CATCH_UP_LIMIT)
    simulate_history(settings, payments, DAYS, seed=1, until=datetime.now(UTC).date())
    make_cut(settings, timeout=CATCH_UP_LIMIT)
    return in_postgres(settings)


def best_tuning(benchmark: Benchmark, documents: int) -> tuple[Tuning, list[tuple[Tuning, float]]]:
    """The fastest tuning of the sink connector, and each that was tried with its documents per second."""
    best = Tuning()
    # The first of a worker pays for its compilation.
    benchmark.try_out(best, documents)
    tried: dict[Tuning, float] = {}
    for name, values in TRIALS:
        for tuning in (replace(best, **{name: value}) for value in values):
            if tuning not in tried:
                # The better of two, lest a moment of the machine decide.
                tried[tuning] = max(benchmark.try_out(tuning, documents) for _ in range(2))
        best = max(tried, key=lambda tuning: tried[tuning])
    return best, list(tried.items())


def measure_all(benchmark: Benchmark, best: Tuning, *, peer_only: bool) -> None:
    """Each contender once, one after the other, so that all meet the same moods of the machine."""
    benchmark.measure_sink_connector("sink connector", best, indexed=False)
    if not peer_only:
        benchmark.measure_ours("our drain, features off", features=False)
        benchmark.measure_sink_connector("sink connector, with the indexes of our charges", best, indexed=True)
        benchmark.measure_ours("our drain, whole documents, features on", features=True)


def stopwatch(target: Documents, wanted: int, check: Callable[[], None]) -> float:
    """Documents per second from the first that is seen in the store until `wanted` are there."""
    deadline = time.monotonic() + LIMIT_S
    first = began = next_check = 0.0
    while (count := target.estimated_document_count()) < wanted:
        now = time.monotonic()
        if count and not first:
            first, began = count, now
        if now > deadline:
            raise TimeoutError(f"{count} of {wanted} documents after {LIMIT_S} s")
        if now > next_check:
            check()
            next_check = now + 1
        time.sleep(LOOK_EVERY_S)
    assert first, "too few documents to measure: take more payments"
    return (count - first) / (time.monotonic() - began)


def check_process(process: subprocess.Popen[str]) -> None:
    """Raises `SystemExit` when the drain has failed."""
    if process.poll():
        raise SystemExit(f"our drain ended with {process.returncode}")


def finish(process: subprocess.Popen[str]) -> dict[str, float]:
    """What our drain reports at its end."""
    output, _ = process.communicate(timeout=LIMIT_S)
    check_process(process)
    report: dict[str, float] = json.loads(output.splitlines()[-1])
    return report


def print_report(
    benchmark: Benchmark, best: Tuning, trials: list[tuple[Tuning, float]], load: tuple[float, ...]
) -> None:
    """The machine and the versions, the tunings tried, the figures and their ratio to the sink connector's."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("confluent-kafka", "pymongo"))
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, load {load[0]:.1f} before and {os.getloadavg()[0]:.1f} after, "
        f"Python {platform.python_version()}, {packages}, MongoDB {benchmark.client.server_info()['version']}, "
        f"Kafka {KAFKA}, Debezium {DEBEZIUM}, mongo-kafka-connect {VERSION}\n\n"
        f"The sink connector's best: {best}\n"
    )
    print("| tried on the beginning of the topic | documents/s |\n|---|---|")
    for tuning, rate in trials:
        print(f"| {tuning} | {rate:,.0f} |")
    units = {"whole call": "s", "peak memory of its process": "MB"}
    base = statistics.median(benchmark.figures["sink connector"])
    print(f"\n| topic → MongoDB, {benchmark.charges.count:,} charges | measured | ratio |\n|---|---|---|")
    for what, values in benchmark.figures.items():
        unit = units.get(what.partition(": ")[2])
        ratio = "" if unit else f"{statistics.median(values) / base:.2f}"
        print(f"| {what} | {spread(values, unit or 'documents/s')} | {ratio} |")
    print(f"| peak memory of the sink connector's worker | {benchmark.worker.peak_mb():,.0f} MB | |")


if __name__ == "__main__":
    main()
