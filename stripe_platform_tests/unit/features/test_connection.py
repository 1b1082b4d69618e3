import pytest

from stripe_platform.features.connection import MongoUnavailable, connect
from stripe_platform_tests.conftest import NewSettings


def test_a_server_that_is_not_there_is_named_with_the_remedy(
    new_settings: NewSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_platform.features.connection.CONNECT_LIMIT_MS", 100)
    settings = new_settings()

    with pytest.raises(MongoUnavailable) as failure, connect(settings) as documents:
        documents.list_collection_names()

    assert f"127.0.0.1:{settings.mongodb_port}" in str(failure.value)
    assert "`make up`" in str(failure.value)
