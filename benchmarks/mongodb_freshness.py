"""Commit to feature value: how long until a payment counts in the features that a polling reader gets.

    uv run --all-extras python benchmarks/mongodb_freshness.py [--rate 500] [--seconds 120] [--modes stream dagster]
        [--loads simulator charges]

While payments are made at the rate, and have been for a while, probes are paid beside them, each by a customer of its
own. The clock of a probe runs from just before its commit is sent to PostgreSQL until `online.read` says that its
customer has paid once. Each mode has a fresh stack: `stream` runs `stripe-platform stream`, `dagster` runs
`dagster dev` and nothing else.
The load `simulator` makes whole payments, each some ten rows in two transactions and more; `charges` makes a charge of
a known customer, card and merchant each, in a transaction of its own.
"""

import argparse
import importlib.metadata
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from pymongo import MongoClient
from uuid_utils.compat import uuid7

from benchmarks.spine import CATCH_UP_LIMIT, own_stack
from stripe_platform.cdc.cut import make_cut
from stripe_platform.local.dagster import DAGSTER
from stripe_platform.local.stack import start_beside
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.simulator.history import simulate_history
from stripe_platform.run import write_instance_config
from stripe_platform.settings import Settings, load_settings

CLI = (sys.executable, "-m", "stripe_platform.cli")
# A company of some size, so that live payments meet known customers and cards.
FIRST_PAYMENTS, FIRST_DAYS = 5_000, 30
PROBES_PER_S = 2.0
# The load before the first probe: processes that have just started import and compile for some seconds.
WARM_UP_S = 15.0
PAUSE_S = 0.005
# A probe that has not been seen so long after the last one is lost.
LOST_AFTER_S = 120
STOP_LIMIT_S = 60

Reader = Callable[[str], bool]


@dataclass
class Probe:
    """A payment of a customer who pays nothing else; `sent` is the clock before its commit."""

    customer: str
    sent: float


def main() -> None:
    """Measure each mode and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rate", type=float, default=500.0)
    arguments.add_argument("--seconds", type=float, default=120.0)
    arguments.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES))
    arguments.add_argument("--loads", nargs="*", choices=LOADS, default=list(LOADS))
    options = arguments.parse_args()
    lines = [measure(mode, load, options.rate, options.seconds) for mode in options.modes for load in options.loads]
    version = importlib.metadata.version("dagster")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, dagster {version}\n")
    print(
        "| commit → feature value | p50 | p95 | p99 | slowest | n | the load beside it |\n|---|---|---|---|---|---|---|"
    )
    for line in lines:
        print(f"| {' | '.join(line)} |")


def measure(mode: str, load: str, rate: float, seconds: float) -> tuple[str, ...]:
    """One mode under one load, on a stack of its own."""
    with own_stack() as settings:
        simulate_history(settings, FIRST_PAYMENTS, FIRST_DAYS, seed=1, until=datetime.now(UTC).date())
        make_cut(settings, timeout=CATCH_UP_LIMIT)
        with MODES[mode](settings), feature_reader(settings) as is_counted:
            # What the history left behind is not what a live payment waits for.
            follow(settings, is_counted, probes=1)
            live = subprocess.Popen(LOADS[load](rate, WARM_UP_S + seconds), stdout=subprocess.PIPE, text=True)
            time.sleep(WARM_UP_S)
            delays = follow(settings, is_counted, probes=int(seconds * PROBES_PER_S))
            average = os.getloadavg()[0]
            summary, _ = live.communicate(timeout=seconds + STOP_LIMIT_S)
    assert live.returncode == 0, f"the load {load} failed"
    made = summary.partition(";")[0].strip()
    cuts = statistics.quantiles(delays, n=100, method="inclusive")
    figures = (f"{value:.2f} s" for value in (cuts[49], cuts[94], cuts[98], max(delays)))
    return (mode, *figures, str(len(delays)), f"{load}: {made}; load average {average:.1f}")


def simulated(rate: float, seconds: float) -> list[str]:
    """The command that makes whole payments."""
    return [*CLI, "simulate", f"--rate={rate}", f"--duration={seconds}"]


def charged(rate: float, seconds: float) -> list[str]:
    """The command that makes charges and nothing else."""
    program = f"from benchmarks.mongodb_freshness import charge_at_rate; charge_at_rate({rate}, {seconds})"
    return [sys.executable, "-c", program]


LOADS = {"simulator": simulated, "charges": charged}


def charge_at_rate(rate: float, seconds: float) -> None:
    """Make charges at their times, each committed by itself; says how many and how fast."""
    chance = random.Random(1)  # noqa: S311 - it guards nothing
    insert = (
        b"INSERT INTO charges (merchant_id, customer_id, payment_method_id, amount, amount_captured, currency, status, "
        b"captured, paid) VALUES (%s, %s, %s, 100, 100, 'eur', 'succeeded', true, true)"
    )
    with connect(load_settings(), autocommit=True) as postgres:
        payers = postgres.execute(
            "SELECT customer_id, id FROM payment_methods WHERE customer_id IS NOT NULL LIMIT 10000"
        ).fetchall()
        merchants = postgres.execute("SELECT id FROM merchants LIMIT 1000").fetchall()
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            postgres.execute(insert, [*chance.choice(merchants), *chance.choice(payers)])
        took = time.monotonic() - began
    print(f"{rate * seconds:,.0f} payments in {took:.1f} s, {rate * seconds / took:.1f}/s")


@contextmanager
def streaming(settings: Settings) -> Iterator[None]:
    """`stripe-platform stream`, ended at the end."""
    with subprocess.Popen([*CLI, "stream"]) as process:
        try:
            yield
            assert process.poll() is None, "the stream has ended by itself"
        finally:
            process.terminate()
            process.wait(STOP_LIMIT_S)


@contextmanager
def dagster_alone(settings: Settings) -> Iterator[None]:
    """`dagster dev`, stopped with its stack."""
    write_instance_config(settings)
    start_beside(settings, DAGSTER)
    yield


MODES = {"stream": streaming, "dagster": dagster_alone}


@contextmanager
def feature_reader(settings: Settings) -> Iterator[Reader]:
    """Tells of a customer whether the feature store counts its payment now."""
    from stripe_platform.features import ids, online, windows  # type: ignore[import-untyped,unused-ignore] # noqa: PLC0415

    client: MongoClient[dict[str, Any]] = MongoClient(
        settings.mongodb_host, settings.mongodb_port, directConnection=True
    )

    def is_counted(customer: str) -> bool:
        vector = online.read(
            client[settings.mongodb_database],  # type: ignore[attr-defined,unused-ignore]
            card=None,
            customer=ids.prefixed("customers", customer),
            merchant=None,
            as_of=windows.AsOf(time.time_ns() // 1000),
            payment=None,
        )
        return bool(vector.values["customer_payments_1h"])

    with client:
        yield is_counted


def follow(settings: Settings, is_counted: Reader, *, probes: int) -> list[float]:
    """Pay so many probes at their times and ask for all that are under way, in turn; their seconds until they count."""
    delays: list[float] = []
    waiting: list[Probe] = []
    with connect(settings, autocommit=True) as postgres:
        customers = new_customers(postgres, probes)
        started = time.monotonic()
        while customers or waiting:
            if customers and time.monotonic() - started >= (probes - len(customers)) / PROBES_PER_S:
                waiting.append(pay(postgres, customers.pop()))
            seen = [probe for probe in waiting if is_seen(probe, is_counted, delays)]
            waiting = [probe for probe in waiting if probe not in seen]
            if not customers and waiting and time.monotonic() - waiting[-1].sent > LOST_AFTER_S:
                raise SystemExit(f"{len(waiting)} of {probes} probes never counted")
            time.sleep(PAUSE_S)
    return delays


def is_seen(probe: Probe, is_counted: Reader, delays: list[float]) -> bool:
    """Whether the probe counts by now; its delay is kept then."""
    if not is_counted(probe.customer):
        return False
    delays.append(time.monotonic() - probe.sent)
    return True


def new_customers(postgres: psycopg.Connection, count: int) -> list[str]:
    """Ids of customers who have paid nothing yet."""
    ids = [str(uuid7()) for _ in range(count)]
    with postgres.cursor() as cursor:
        cursor.executemany("INSERT INTO customers (id) VALUES (%s)", [(id_,) for id_ in ids])
    return ids


def pay(postgres: psycopg.Connection, customer: str) -> Probe:
    """One payment of one euro by the customer, in a transaction of its own."""
    with postgres.transaction():
        postgres.execute(
            "INSERT INTO charges (merchant_id, customer_id, amount, amount_captured, currency, status, captured, paid) "
            "SELECT id, %s, 100, 100, 'eur', 'succeeded', true, true FROM merchants LIMIT 1",
            [customer],
        )
        sent = time.monotonic()
    return Probe(customer, sent)


if __name__ == "__main__":
    main()
