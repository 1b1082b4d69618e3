"""Reading the features of a payment: for typical parties, and for a merchant with a million payments in 30 days.

    uv run --all-extras python benchmarks/features_read.py [--hot 1000000] [--typical 120000] [--reads 1000]

Seeds a mongod of its own with charges as the stream writes them, and their tiles. Prints a Markdown table: the median
and the 95th percentile of a read of all features of card, customer and merchant. The script stops if a count is not
that of the seed. Needs about 2 GB of disk in the temporary folder.
"""

import argparse
import os
import platform
import random
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pymongo
from pymongo import MongoClient
from pymongo.database import Database

from stripe_platform.features.definitions import FEATURES
from stripe_platform.features.hold import COLLECTION as SINK_COLLECTION
from stripe_platform.features.hold import ID as SINK
from stripe_platform.features.online import FeatureVector, read
from stripe_platform.features.payments import CHARGES, PAYMENT_INDEXES, Entity, Payment
from stripe_platform.features.tiles import TILE_INDEXES, TILE_VALIDATOR, deltas, total, write
from stripe_platform.features.windows import DAY, HOUR, AsOf
from stripe_platform.local.mongodb import MONGODB
from stripe_platform.settings import Settings

NOW = 1_770_000_123_456_789
# Labels are looked at over 30 days that end 7 days ago.
DAYS_SEEDED = 38
HOT = "acct_hot"
MERCHANTS, PEOPLE = 50, 2_000
BATCH = 2_000
LIMIT_S = 60

Store = Database[dict[str, Any]]


def main() -> None:
    """Seed, measure, print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--hot", type=int, default=1_000_000, help="payments of the hot merchant in 30 days")
    arguments.add_argument("--typical", type=int, default=120_000)
    arguments.add_argument("--reads", type=int, default=1_000)
    options = arguments.parse_args()
    chance = random.Random(1)  # noqa: S311
    crowd = options.hot * DAYS_SEEDED // 30
    with own_mongod() as store:
        create(store)
        insert(store, (payment(chance, HOT, person=None) for _ in range(crowd)), only=Entity.MERCHANT)
        typical = (
            payment(chance, HOT if n % 10 == 0 else f"acct_{n % MERCHANTS}", person=chance.randrange(PEOPLE))
            for n in range(options.typical)
        )
        seconds = insert(store, typical, only=None)
        store[CHARGES].create_indexes(list(PAYMENT_INDEXES))
        check(store)
        lines = [
            (f"tiles of {options.typical:,} payments, {BATCH:,} a transaction", f"{options.typical / seconds:,.0f}/s"),
            *measure(store, chance, "a typical merchant", options.reads, merchants=MERCHANTS),
            *measure(store, chance, f"the merchant with {options.hot:,} payments in 30 days", options.reads, None),
        ]
    version = f"pymongo {pymongo.version}"
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {version}\n")
    print("| what | measured |\n|---|---|")
    for what, measured in lines:
        print(f"| {what} | {measured} |")


@contextmanager
def own_mongod() -> Iterator[Store]:
    """A replica set of one node in a temporary folder, set up as the local stack does."""
    with tempfile.TemporaryDirectory(prefix="stripe-platform-benchmark-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        settings = Settings.model_validate({"stripe_platform_home": Path(folder), "mongodb_port": port})
        MONGODB.prepare(settings)
        server = subprocess.Popen(MONGODB.program(settings).command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + LIMIT_S
            while (problem := MONGODB.why_not_ready(settings)) is not None:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise TimeoutError(problem)
            with MongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True) as client:
                yield client["stripe"]
        finally:
            server.terminate()
            server.wait(LIMIT_S)


def create(store: Store) -> None:
    """The collections; those of charges get their indexes after the seed, which is quicker."""
    for entity in Entity:
        store.create_collection(entity.collection, validator=TILE_VALIDATOR)
        store[entity.collection].create_indexes(list(TILE_INDEXES))
    store.create_collection(CHARGES)
    store[SINK_COLLECTION].insert_one({"_id": SINK, "version": 1, "offsets": {}})


def payment(chance: random.Random, merchant: str, person: int | None) -> Payment:
    """A payment at random; without a person, by a customer and a card that are seen once or twice."""
    created = NOW - chance.randrange(DAYS_SEEDED * DAY)
    number = 10**9 + chance.randrange(10**6) if person is None else person
    return Payment(
        id=f"ch_{UUID(int=chance.getrandbits(128)).hex}",
        created=created,
        merchant=merchant,
        customer=f"cus_{number:032x}",
        card=f"{number:016x}",
        amount=chance.randrange(20_000),
        declined=chance.random() < 0.05,
        fraud_known_at=created + 6 * DAY if chance.random() < 0.01 else None,
    )


def insert(store: Store, payments: Iterable[Payment], only: Entity | None) -> float:
    """Write charges and the tiles of all entities, or of one; the seconds that the tiles took."""
    seconds = 0.0
    for batch in batched_payments(payments):
        store[CHARGES].insert_many([document_of(each) for each in batch], ordered=False)
        began = time.monotonic()
        changed = total(deltas(None, each) for each in batch)
        wanted = {place: tile for place, tile in changed.items() if only in (None, place.entity)}
        with store.client.start_session() as session, session.start_transaction():
            write(session, store, wanted)
        seconds += time.monotonic() - began
    return seconds


def batched_payments(payments: Iterable[Payment]) -> Iterator[tuple[Payment, ...]]:
    """As many at once as the stream takes."""
    ahead = iter(payments)
    while batch := tuple(islice(ahead, BATCH)):
        yield batch


def document_of(each: Payment) -> dict[str, Any]:
    """What a document of charges holds for features, and something else."""
    return {
        "_id": each.id,
        "created": each.created,
        "status": "failed" if each.declined else "succeeded",
        "merchant": each.merchant,
        "customer": each.customer,
        "card": {"fingerprint": each.card, "brand": "visa", "funding": "credit"},
        "amount": each.amount,
        "currency": "eur",
        "reporting_amount": each.amount,
        "fraud_known_at": each.fraud_known_at,
        "refunds": [],
        "disputes": [],
    }


def check(store: Store) -> None:
    """Stop unless the hot merchant's features are those of its documents."""
    values = read_for(store, 0, HOT, NOW).values
    within = {"merchant": HOT, "created": {"$gt": NOW - 30 * DAY, "$lte": NOW}}
    # And the payment being scored.
    wanted = store[CHARGES].count_documents(within) + 1
    found = values["merchant_payments_30d"]
    if found != wanted:
        raise AssertionError(f"the features count {found} payments, the documents are {wanted}")


def read_for(store: Store, person: int, merchant: str, moment: int) -> FeatureVector:
    """The features of a payment that is not stored yet."""
    scored = Payment(f"ch_{'0' * 32}", moment, merchant, f"cus_{person:032x}", f"{person:016x}", 1_000, False, None)
    return read(
        store,
        card=scored.card,
        customer=scored.customer,
        merchant=merchant,
        as_of=AsOf(moment, scored.id),
        payment=scored,
    )


def measure(
    store: Store, chance: random.Random, whose: str, reads: int, merchants: int | None
) -> list[tuple[str, str]]:
    """Reads one after another, of random people in the last two hours."""
    milliseconds = []
    for _ in range(reads):
        merchant = HOT if merchants is None else f"acct_{chance.randrange(merchants)}"
        person, moment = chance.randrange(PEOPLE), NOW - chance.randrange(2 * HOUR)
        began = time.perf_counter()
        read_for(store, person, merchant, moment)
        milliseconds.append((time.perf_counter() - began) * 1_000)
    low, median, high = min(milliseconds), statistics.median(milliseconds), statistics.quantiles(milliseconds, n=20)[-1]
    return [
        (
            f"{len(FEATURES)} features of a card, a customer and {whose}",
            f"median {median:.1f} ms, p95 {high:.1f} ms, least {low:.1f} ms (n={reads})",
        )
    ]


if __name__ == "__main__":
    main()
