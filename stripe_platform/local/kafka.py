"""Apache Kafka: one node that is broker and controller at once (KRaft)."""

import base64
import subprocess
import uuid

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stripe_platform.local.errors import ServerFailed
from stripe_platform.local.java import java_command, properties
from stripe_platform.local.server import Program, Server, log_file, run_folder, write_private
from stripe_platform.settings import Settings

HEAP_MB = 512
FORMAT_TIMEOUT_S = 90
PROBE_TIMEOUT_S = 3


def _configuration(settings: Settings) -> dict[str, object]:
    controller = f"{settings.kafka_host}:{settings.kafka_controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        # Named here rather than in the log of the quorum, so that a changed port needs no reconfiguration.
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{settings.kafka_bootstrap},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{settings.kafka_bootstrap}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": settings.home / "kafka",
        # The platform makes its topics; a mistyped name must fail.
        "auto.create.topics.enable": "false",
        "num.partitions": 1,
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 5,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 5,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A row with a large JSON document, twice (before and after).
        "message.max.bytes": 10 * 1024 * 1024,
        # Its default, 128 MB, is a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }


def _prepare(settings: Settings) -> None:
    file = run_folder(settings) / "kafka.properties"
    write_private(file, properties(_configuration(settings)))
    folder = settings.home / "kafka"
    folder.mkdir(mode=0o700, exist_ok=True)
    if (folder / "meta.properties").exists():
        return
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    made = subprocess.run(
        # The = keeps an id that begins with a dash from being read as an option.
        java_command(
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",
            "--config",
            str(file),
            "--ignore-formatted",
        ),
        capture_output=True,
        text=True,
        timeout=FORMAT_TIMEOUT_S,
        check=False,
    )
    if made.returncode != 0:
        log = log_file(settings, "kafka")
        log.write_text(made.stdout + made.stderr)
        raise ServerFailed("Kafka", "its storage could not be formatted", log)


def _program(settings: Settings) -> Program:
    file = run_folder(settings) / "kafka.properties"
    return Program(name="kafka", command=java_command("kafka.Kafka", str(file), heap_mb=HEAP_MB), stop_limit=30)


def _why_not_ready(settings: Settings) -> str | None:
    # librdkafka would tell of each refused connection on stderr.
    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 0})
    try:
        return None if client.list_topics(timeout=PROBE_TIMEOUT_S).brokers else "it has no broker yet"
    except KafkaException:
        return "it does not answer for its metadata yet"


KAFKA = Server(
    name="kafka",
    title="Kafka",
    ports=lambda settings: {
        "KAFKA_PORT": settings.kafka_port,
        "KAFKA_CONTROLLER_PORT": settings.kafka_controller_port,
    },
    prepare=_prepare,
    program=_program,
    why_not_ready=_why_not_ready,
)
