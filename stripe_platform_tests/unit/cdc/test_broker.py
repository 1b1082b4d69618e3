import pytest
from confluent_kafka import KafkaError, KafkaException

from stripe_platform.cdc.broker import BrokerUnavailable, TopicMissing, admin, named_errors
from stripe_platform.settings import Settings


@pytest.fixture
def settings() -> Settings:
    # Nothing listens there: no client of these tests asks anything.
    return Settings(kafka_port=1)


def _fail(settings: Settings, failure: Exception) -> None:
    with named_errors(settings, "a topic"):
        raise failure


@pytest.mark.parametrize(
    "failure",
    [KafkaException(KafkaError(KafkaError.FENCED_LEADER_EPOCH)), TimeoutError()],
    ids=["fenced", "silent"],
)
def test_a_broker_that_failed_is_asked_by_a_new_client(settings: Settings, failure: Exception) -> None:
    before = admin(settings)
    with pytest.raises(BrokerUnavailable):
        _fail(settings, failure)
    assert admin(settings) is not before


def test_a_missing_topic_is_no_reason_for_a_new_client(settings: Settings) -> None:
    before = admin(settings)
    with pytest.raises(TopicMissing):
        _fail(settings, KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
    assert admin(settings) is before
