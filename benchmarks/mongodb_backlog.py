"""A backlog into MongoDB: all topics that documents and features are made of, from their beginnings into nothing.

    uv run --all-extras python benchmarks/mongodb_backlog.py [--payments 137000] [--repeats 2]

A company's history goes through PostgreSQL and Debezium into the topics once. Then the drain takes all of it, in a
process of its own, into an empty database: the clock runs from its start until the stored offsets are those of the
topics' ends. Prints Markdown; stops if the documents are not as many as PostgreSQL's charges. Needs about 3 GB of disk
in the temporary folder for 137,000 payments, which are some million changes.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from typing import Any

from pymongo import MongoClient

from benchmarks.mongodb_upserts import LIMIT_S, fill_topic
from benchmarks.spine import own_stack, spread
from stripe_platform.settings import Settings

# In a process of its own, so that its memory is its own.
DRAIN = """
import json, resource, time
from stripe_platform.features.drain import drain
from stripe_platform.features.sink import TABLES, open_store
from stripe_platform.settings import load_settings

settings = load_settings()
began = time.monotonic()
changes = 0
with open_store(settings) as store:
    while True:
        report = drain(settings, TABLES, store=store)
        changes += sum(drained.rows for drained in report.tables.values())
        if not report.lag:
            break
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"changes": changes, "seconds": time.monotonic() - began, "peak_mb": peak}))
"""


def main() -> None:
    """Fill the topics, drain them several times and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--payments", type=int, default=137_000)
    arguments.add_argument("--repeats", type=int, default=2)
    options = arguments.parse_args()
    with own_stack() as settings:
        charges = fill_topic(settings, options.payments).count
        load = os.getloadavg()[0]
        results = [drained(settings, f"backlog_{number}", charges) for number in range(options.repeats)]
    version = importlib.metadata.version("pymongo")
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, load {load:.1f} before, Python {platform.python_version()}, "
        f"pymongo {version}\n"
    )
    print("| what | measured |\n|---|---|")
    print(f"| a backlog of {results[0]['changes']:,} changes | {spread([r['seconds'] for r in results], 's')} |")
    rates = [result["changes"] / result["seconds"] for result in results]
    print(f"| which is | {spread(rates, 'changes/s')} |")
    print(f"| peak memory of the drain's process | {spread([r['peak_mb'] for r in results], 'MB')} |")


def drained(settings: Settings, database: str, charges: int) -> dict[str, float]:
    """One drain of everything into the database, which is dropped afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", DRAIN],
        env={**os.environ, "MONGODB_DATABASE": database},
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    client: MongoClient[dict[str, Any]] = MongoClient(
        settings.mongodb_host, settings.mongodb_port, directConnection=True
    )
    with client:
        found = client[database]["charges"].count_documents({"incomplete": {"$exists": False}})
        client.drop_database(database)
    if found != charges:
        raise SystemExit(f"the store holds {found} whole charges, PostgreSQL {charges}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
