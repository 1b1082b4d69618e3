"""Every topic the connector writes: its name, its partitions and its settings, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import NewTopic

from stripe_platform.cdc.broker import REQUEST_LIMIT, admin, named_errors
from stripe_platform.environment import Environment
from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.replication import SIGNALS_SCHEMA, SIGNALS_TABLE
from stripe_platform.oltp.tables import CAPTURED_TABLES, TABLES_BY_NAME
from stripe_platform.settings import Settings

TOPIC_PREFIX = "stripe"
MESSAGE_TOPIC = f"{TOPIC_PREFIX}.message"
TRANSACTION_TOPIC = f"{TOPIC_PREFIX}.transaction"
HEARTBEAT_TOPIC = f"__debezium-heartbeat.{TOPIC_PREFIX}"
# Requests for snapshots and the bounds of their chunks; nobody reads it, but the connector cannot leave it out.
SIGNAL_TOPIC = f"{TOPIC_PREFIX}.{SIGNALS_SCHEMA}.{SIGNALS_TABLE}"
# How the connector started, how far snapshots are, and how they ended.
NOTIFICATION_TOPIC = f"{TOPIC_PREFIX}.notification"

# A row with its large values, uncompressed, must fit; the connector's max.request.size is the same figure.
LARGEST_MESSAGE_BYTES = 10 * 1024 * 1024
# Longer than any sink may be away, and shorter than the 28 days that an erasure may take.
CHANGES_ARE_KEPT = timedelta(days=7)
SIGNALS_ARE_KEPT = timedelta(days=1)

REPLICATION = {Environment.LOCAL: 1, Environment.DOCKER: 1, Environment.CLOUD: 3}


class TopicPartitionsDiffer(StripePlatformError):
    """A topic has another number of partitions than declared: its keys would no longer be in order."""

    def __init__(self, differing: Mapping[str, tuple[int, int]]) -> None:
        counts = "; ".join(f"{topic} has {found}, declared {wanted}" for topic, (found, wanted) in differing.items())
        super().__init__(
            f"the partitions of a topic are fixed for its life: {counts}; restore `topic_partitions` in "
            "oltp/tables.py, or delete the topic and take a new snapshot"
        )


@dataclass(frozen=True)
class Topic:
    """A topic as it shall be."""

    name: str
    partitions: int
    kept: timedelta | None  # None: for ever

    def to_create(self, replication: int) -> NewTopic:
        """The request that creates it with this replication factor."""
        return NewTopic(
            self.name,
            num_partitions=self.partitions,
            replication_factor=replication,
            config={
                "cleanup.policy": "delete",
                "retention.ms": str(int(self.kept.total_seconds() * 1000)) if self.kept else "-1",
                "compression.type": "zstd",
                "max.message.bytes": str(LARGEST_MESSAGE_BYTES),
                # One replica may be down and writing goes on.
                "min.insync.replicas": str(max(1, replication - 1)),
            },
        )


def topic_for(table: str) -> str:
    """The topic of a captured table; KeyError for another one."""
    return f"{TOPIC_PREFIX}.{TABLES_BY_NAME[table].qualified}"


def declared_topics() -> tuple[Topic, ...]:
    """Every topic that the connector writes."""
    return (
        *(Topic(topic_for(table.name), table.topic_partitions, CHANGES_ARE_KEPT) for table in CAPTURED_TABLES),
        *(
            Topic(name, 1, SIGNALS_ARE_KEPT)
            for name in (MESSAGE_TOPIC, TRANSACTION_TOPIC, HEARTBEAT_TOPIC, SIGNAL_TOPIC)
        ),
        # A start without stored offsets is told here alone, and some hundred bytes stand for a chunk of a snapshot.
        Topic(NOTIFICATION_TOPIC, 1, None),
    )


def partitions_found(settings: Settings) -> dict[str, int | None]:
    """The number of partitions of each declared topic as it is in Kafka; None where it does not exist."""
    client = admin(settings)
    names = [topic.name for topic in declared_topics()]
    limit = REQUEST_LIMIT.total_seconds()
    found: dict[str, int | None] = {}
    with named_errors(settings, "a topic"):
        for name, answer in client.describe_topics(TopicCollection(names), request_timeout=limit).items():
            try:
                found[name] = len(answer.result(limit).partitions)
            except KafkaException as failure:
                if failure.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
                found[name] = None
    return found


def differing_partitions(settings: Settings) -> dict[str, tuple[int, int]]:
    """{topic: (partitions found, partitions declared)} where the two differ; 0 found: there is no topic."""
    found = partitions_found(settings)
    return {
        topic.name: (found[topic.name] or 0, topic.partitions)
        for topic in declared_topics()
        if found[topic.name] != topic.partitions
    }


def ensure_topics(settings: Settings) -> tuple[str, ...]:
    """Create the declared topics that are missing, and return their names.

    Never alters a topic: `TopicPartitionsDiffer`, before anything is created, when one has other partitions.
    """
    differing = differing_partitions(settings)
    altered = {name: counts for name, counts in differing.items() if counts[0]}
    if altered:
        raise TopicPartitionsDiffer(altered)
    missing = [topic for topic in declared_topics() if topic.name in differing]
    if missing:
        _create(settings, missing)
    return tuple(topic.name for topic in missing)


def _create(settings: Settings, topics: list[Topic]) -> None:
    client = admin(settings)
    replication = REPLICATION[settings.stripe_platform_env]
    limit = REQUEST_LIMIT.total_seconds()
    requests = [topic.to_create(replication) for topic in topics]
    with named_errors(settings, "a topic"):
        for answer in client.create_topics(requests, operation_timeout=limit, request_timeout=limit).values():
            try:
                answer.result(limit)
            except KafkaException as failure:
                # Two registrations at once: whoever came first made it.
                if failure.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
