"""How to reach Kafka: one connection configuration and one error for every client of the platform."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings

REQUEST_LIMIT = timedelta(seconds=15)
UNKNOWN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


class BrokerUnavailable(StripePlatformError):
    """Kafka did not answer, or refused what was asked."""

    def __init__(self, bootstrap: str, reason: str) -> None:
        super().__init__(
            f"Kafka at {bootstrap}: {reason}; "
            "is it running? see `stripe-platform status`, and start it with `stripe-platform up`"
        )


class TopicMissing(StripePlatformError):
    """A topic that the platform creates before anything writes to it is not there."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} does not exist in Kafka; create it by materializing cdc/connector or by `stripe-platform up`"
        )


def connection(settings: Settings) -> dict[str, str | int | float | bool]:
    """Configuration that every producer, consumer and admin client begins with."""
    # librdkafka writes each failed attempt to stderr; callers get the error itself, once.
    return {"bootstrap.servers": settings.kafka_bootstrap, "client.id": "stripe-platform", "log_level": 2}


def admin(settings: Settings) -> AdminClient:
    """The process's admin client of this broker; it connects when first asked something."""
    return _admin(tuple(connection(settings).items()))


@lru_cache(maxsize=4)
def _admin(configuration: tuple[tuple[str, str | int | float | bool], ...]) -> AdminClient:
    # Kept: of new clients one in twelve waits one to three seconds for its first answer.
    return AdminClient(dict(configuration))


def _forget_admin() -> None:
    # A client that outlives its broker asks for ever with the leader epochs of before (FENCED_LEADER_EPOCH).
    _admin.cache_clear()


@contextmanager
def named_errors(settings: Settings, what: str) -> Iterator[None]:
    """Turn the client's errors into ours; `what` names the topics that were asked about."""
    try:
        yield
    except KafkaException as failure:
        error = failure.args[0]
        if error.code() in UNKNOWN:
            raise TopicMissing(what) from failure
        _forget_admin()
        raise BrokerUnavailable(settings.kafka_bootstrap, f"{error.name()} ({error.str()})") from failure
    except TimeoutError as failure:
        _forget_admin()
        raise BrokerUnavailable(settings.kafka_bootstrap, "no answer in time") from failure
