from stripe_platform.cdc.topics import (
    HEARTBEAT_TOPIC,
    MESSAGE_TOPIC,
    NOTIFICATION_TOPIC,
    REPLICATION,
    SIGNAL_TOPIC,
    TRANSACTION_TOPIC,
    TopicPartitionsDiffer,
    declared_topics,
    topic_for,
)
from stripe_platform.environment import Environment
from stripe_platform.oltp.tables import CAPTURED_TABLES


def test_a_table_s_topic_is_prefix_schema_and_name() -> None:
    assert topic_for("charges") == "stripe.payments.charges"


def test_every_topic_the_connector_writes_is_declared_once() -> None:
    names = [topic.name for topic in declared_topics()]
    tables = {topic_for(table.name) for table in CAPTURED_TABLES}
    assert len(names) == len(set(names))
    assert set(names) == tables | {
        MESSAGE_TOPIC,
        TRANSACTION_TOPIC,
        HEARTBEAT_TOPIC,
        SIGNAL_TOPIC,
        NOTIFICATION_TOPIC,
    }


def test_a_table_s_topic_has_the_partitions_of_the_table() -> None:
    declared = {topic.name: topic.partitions for topic in declared_topics()}
    assert len({table.topic_partitions for table in CAPTURED_TABLES}) > 1
    assert all(declared[topic_for(table.name)] == table.topic_partitions for table in CAPTURED_TABLES)


def test_logical_messages_have_one_partition_so_that_a_cut_can_wait_for_its_marker() -> None:
    assert {topic.name: topic.partitions for topic in declared_topics()}[MESSAGE_TOPIC] == 1


def test_every_environment_has_its_replication_factor_and_one_broker_may_be_away_in_the_cloud() -> None:
    assert set(REPLICATION) == set(Environment)
    in_the_cloud = declared_topics()[0].to_create(REPLICATION[Environment.CLOUD])
    assert in_the_cloud.replication_factor == 3
    assert in_the_cloud.config is not None
    assert in_the_cloud.config["min.insync.replicas"] == "2"


def test_changed_partitions_are_refused_with_topic_counts_and_remedy() -> None:
    error = str(TopicPartitionsDiffer({"stripe.payments.charges": (8, 4)}))
    assert "stripe.payments.charges has 8, declared 4" in error
    assert "new snapshot" in error
