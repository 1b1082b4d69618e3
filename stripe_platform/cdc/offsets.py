"""Where the topics begin and end, and which topics they are."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from stripe_platform.cdc.broker import REQUEST_LIMIT, TopicMissing, admin, named_errors
from stripe_platform.cdc.topics import MESSAGE_TOPIC, NOTIFICATION_TOPIC, topic_for
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import Settings

# What is said of a topic that was made a moment ago.
# Of a topic that was just made; librdkafka has a word of its own for it.
NO_LEADER = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._NOENT})


def last_stable_offsets(settings: Settings, tables: Iterable[str]) -> dict[str, dict[int, int]]:
    """{table: {partition: offset after the last record that a read_committed consumer may see}}."""
    return _table_offsets(settings, tables, OffsetSpec.latest())


def written_offsets(settings: Settings, tables: Iterable[str]) -> dict[str, dict[int, int]]:
    """{table: {partition: offset after the last record, be its transaction open or ended}}."""
    return _table_offsets(settings, tables, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)


def beginning_offsets(settings: Settings, tables: Iterable[str]) -> dict[str, dict[int, int]]:
    """{table: {partition: offset of the oldest record still kept}}."""
    return _table_offsets(settings, tables, OffsetSpec.earliest())


def has_come_to(offsets: Mapping[str, Mapping[int, int]], ends: Mapping[str, Mapping[int, int]]) -> bool:
    """Whether the offsets are as far as the ends in every partition of the ends."""
    return all(
        offsets[table][partition] >= end for table, partitions in ends.items() for partition, end in partitions.items()
    )


def all_written_visible(
    settings: Settings, tables: Iterable[str], check_time: Callable[[], None]
) -> dict[str, dict[int, int]]:
    """The last stable offsets, once they have come to all that is written now; `check_time` ends the wait by raising.

    A Kafka transaction's end reaches its partitions one after the other: rows of one transaction may be visible in
    one partition and not yet in another.
    """
    names = list(tables)
    # Asked once: under load the ends move on for ever.
    written = written_offsets(settings, names)
    while not has_come_to(stable := last_stable_offsets(settings, names), written):
        check_time()
        time.sleep(0.05)
    return stable


def message_end_offset(settings: Settings) -> int:
    """Last stable offset of the one partition of the topic of logical messages."""
    (offset,) = _offsets(settings, [TopicPartition(MESSAGE_TOPIC, 0)], OffsetSpec.latest()).values()
    return offset


def notice_offsets(settings: Settings) -> tuple[int, int]:
    """Offset of the oldest notice of the connector that is kept, and the last stable one."""
    place = TopicPartition(NOTIFICATION_TOPIC, 0)
    begin, end = (_offsets(settings, [place], spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
    return begin[place.topic, 0], end[place.topic, 0]


def notices_written(settings: Settings) -> int:
    """Offset after the last notice of the connector, be its transaction open or ended."""
    place = TopicPartition(NOTIFICATION_TOPIC, 0)
    (offset,) = _offsets(settings, [place], OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED).values()
    return offset


def all_notices_visible(settings: Settings, check_time: Callable[[], None]) -> None:
    """Wait until every notice that is written now can be read; `check_time` ends the wait by raising."""
    written = notices_written(settings)
    while notice_offsets(settings)[1] < written:
        check_time()
        time.sleep(0.05)


def notice_topic_id(settings: Settings) -> str:
    """The id Kafka gave the topic of the connector's notices."""
    return _topic_ids(settings, [NOTIFICATION_TOPIC])[NOTIFICATION_TOPIC]


def topic_ids(settings: Settings, tables: Iterable[str]) -> dict[str, str]:
    """{table: the id Kafka gave its topic}: another id means a new topic under the old name."""
    topics = {topic_for(table): table for table in tables}
    return {topics[topic]: topic_id for topic, topic_id in _topic_ids(settings, topics).items()}


def known_topic_ids(settings: Settings, tables: Iterable[str]) -> tuple[dict[str, str], dict[str, TopicMissing]]:
    """As `topic_ids`, of the topics that there are; and the error of each table that has none."""
    names = list(tables)
    with suppress(TopicMissing):
        return topic_ids(settings, names), {}
    ids: dict[str, str] = {}
    missing: dict[str, TopicMissing] = {}
    for table in names:
        try:
            ids |= topic_ids(settings, [table])
        except TopicMissing as error:
            missing[table] = error
    return ids, missing


def _topic_ids(settings: Settings, topics: Iterable[str]) -> dict[str, str]:
    limit = REQUEST_LIMIT.total_seconds()
    # Kept in a variable: a client without a reference is closed, and its answers never come.
    client = admin(settings)
    with named_errors(settings, "a topic of the platform"):
        answers = client.describe_topics(TopicCollection(list(topics)), request_timeout=limit)
    ids = {}
    for topic, answer in answers.items():
        with named_errors(settings, f"topic {topic}"):
            ids[topic] = str(answer.result(limit).topic_id)
    return ids


def _table_offsets(
    settings: Settings,
    tables: Iterable[str],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[str, dict[int, int]]:
    wanted = {
        (topic_for(table), partition): table
        for table in tables
        for partition in range(TABLES_BY_NAME[table].topic_partitions)
    }
    found = _offsets(settings, [TopicPartition(*place) for place in wanted], spec, isolation)
    offsets: dict[str, dict[int, int]] = {}
    for (topic, partition), table in wanted.items():
        offsets.setdefault(table, {})[partition] = found[topic, partition]
    return offsets


def _has_no_leader_yet(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in NO_LEADER


@retry(
    retry=retry_if_exception(_has_no_leader_yet),
    wait=wait_fixed(0.1),
    stop=stop_after_delay(REQUEST_LIMIT.total_seconds()),
    reraise=True,
)
def _offsets(
    settings: Settings,
    places: list[TopicPartition],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[tuple[str, int], int]:
    limit = REQUEST_LIMIT.total_seconds()
    client = admin(settings)
    with named_errors(settings, "a topic partition of a captured table"):
        answers = client.list_offsets(dict.fromkeys(places, spec), isolation_level=isolation, request_timeout=limit)
        return {(place.topic, place.partition): answer.result(limit).offset for place, answer in answers.items()}
