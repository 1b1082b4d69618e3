"""The official MongoDB sink connector for Kafka Connect, as others run it: what our drain is measured against.

It has a worker of its own, so that neither the stack's Connect nor the platform's pinned files know of it.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from jgo.maven import MavenContext

from benchmarks.spine import free_ports
from stripe_platform.cdc.connect import ConnectClient
from stripe_platform.cdc.topics import topic_for
from stripe_platform.local.artifacts import Artifact, cache_folder, ensure_bundle, pinned
from stripe_platform.local.java import java_command, properties
from stripe_platform.local.mongodb import REPLICA_SET
from stripe_platform.local.server import READY_TIMEOUT_S
from stripe_platform.settings import Settings

LOCK_FILE = Path(__file__).with_suffix(".lock.json")
BUNDLE = "mongodb-sink-connector"
VERSION = pinned(BUNDLE, LOCK_FILE)[0].coordinates.rpartition(":")[2]

SINK = "com.mongodb.kafka.connect.MongoSinkConnector"
CDC_HANDLER = "com.mongodb.kafka.connect.sink.cdc.debezium.rdbms.postgres.PostgresHandler"
JSON = "org.apache.kafka.connect.json.JsonConverter"
TEXT = "org.apache.kafka.connect.storage.StringConverter"
COLLECTION = "charges"

# What Kafka's own script gives a worker.
HEAP_MB = 2048
STOP_LIMIT_S = 30


@dataclass(frozen=True)
class Tuning:
    """What may make it faster; the defaults are its own."""

    max_poll_records: int = 500
    max_batch_size: int = 0
    tasks_max: int = 1
    bulk_write_ordered: bool = True
    converter: str = JSON

    def __str__(self) -> str:
        order = "true" if self.bulk_write_ordered else "false"
        return (
            f"max.poll.records={self.max_poll_records}, max.batch.size={self.max_batch_size}, "
            f"tasks.max={self.tasks_max}, bulk.write.ordered={order}, {self.converter.rpartition('.')[2]}"
        )


@dataclass
class SinkWorker:
    """A Connect worker that knows the sink connector."""

    settings: Settings
    url: str
    process: psutil.Process
    _connectors: int = field(default=0, init=False)

    @contextmanager
    def connector(self, database: str, tuning: Tuning) -> Iterator[str]:
        """The name of a connector that reads the topic of charges from its beginning into `database`, until the end."""
        self._connectors += 1
        # The consumer group has its name: a new one starts at the beginning.
        name = f"sink-{self._connectors}"
        ConnectClient(self.url).put_config(name, self._configuration(name, database, tuning))
        try:
            yield name
        finally:
            httpx.delete(f"{self.url}/connectors/{name}", timeout=STOP_LIMIT_S, trust_env=False).raise_for_status()

    def check(self, name: str) -> None:
        """Raises `RuntimeError`, with the trace, when the connector or a task of it has failed."""
        status = ConnectClient(self.url).status(name) or {"connector": {}, "tasks": []}
        for part in (status["connector"], *status["tasks"]):
            if part.get("state") == "FAILED":
                raise RuntimeError(f"the sink connector failed: {part.get('trace')}")

    def peak_mb(self) -> float:
        """The most memory that the worker ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024

    def _configuration(self, name: str, database: str, tuning: Tuning) -> dict[str, str]:
        settings = self.settings
        return {
            "name": name,
            "connector.class": SINK,
            "topics": topic_for("charges"),
            "connection.uri": (
                f"mongodb://{settings.mongodb_host}:{settings.mongodb_port}/"
                f"?replicaSet={REPLICA_SET}&w=majority&journal=true"
            ),
            "database": database,
            "collection": COLLECTION,
            "change.data.capture.handler": CDC_HANDLER,
            "key.converter": tuning.converter,
            "key.converter.schemas.enable": "false",
            "value.converter": tuning.converter,
            "value.converter.schemas.enable": "false",
            "tasks.max": str(tuning.tasks_max),
            "max.batch.size": str(tuning.max_batch_size),
            "bulk.write.ordered": str(tuning.bulk_write_ordered).lower(),
            # Debezium writes exactly once: what it gave up must not be read.
            "consumer.override.isolation.level": "read_committed",
            "consumer.override.max.poll.records": str(tuning.max_poll_records),
            # A poll gives what one fetch brought: it must not be what bounds the batch.
            "consumer.override.max.partition.fetch.bytes": str(8 * 1024 * 1024),
        }


@contextmanager
def sink_worker(settings: Settings) -> Iterator[SinkWorker]:
    """A worker beside the stack's own, on a free port; ended at the end. The first use fetches 8 MB."""
    folder = settings.home / "sink-worker"
    folder.mkdir()
    (port,) = free_ports(1)
    file = folder / "worker.properties"
    file.write_text(
        properties(
            {
                "bootstrap.servers": settings.kafka_bootstrap,
                "key.converter": JSON,
                "value.converter": JSON,
                "offset.storage.file.filename": folder / "offsets",
                "connector.client.config.override.policy": "All",
                "plugin.path": ensure_bundle(BUNDLE, cache_folder(), inside=BUNDLE, lock_file=LOCK_FILE, fetch=fetch),
                "listeners": f"http://127.0.0.1:{port}",
            }
        )
    )
    command = java_command("org.apache.kafka.connect.cli.ConnectStandalone", str(file), heap_mb=HEAP_MB)
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            worker = SinkWorker(settings, f"http://127.0.0.1:{port}", psutil.Process(process.pid))
            wait_until_ready(worker.url)
            yield worker
        finally:
            process.terminate()
            process.wait(STOP_LIMIT_S)


def fetch(artifact: Artifact, repository: Path) -> Path:
    """The jar that holds the connector with all that it needs, as MongoDB publishes it."""
    group, name, version = artifact.coordinates.split(":")
    project = MavenContext(repo_cache=repository).project(group, name)
    return Path(project.at_version(version).artifact(classifier="all").resolve())


def wait_until_ready(url: str) -> None:
    """Return when the worker answers and knows the connector."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            plugins = httpx.get(f"{url}/connector-plugins", trust_env=False).raise_for_status().json()
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        assert any(plugin["class"] == SINK for plugin in plugins), "the worker does not know the sink connector"
        return
    raise TimeoutError("the worker of the sink connector did not start")
