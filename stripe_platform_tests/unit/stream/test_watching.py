"""Measuring and reporting go on whatever fails, and show that they do not know."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
from prometheus_client import generate_latest

from stripe_platform.cdc.lag import Lag
from stripe_platform.features.assets import TABLES_OF, collection_key
from stripe_platform.features.sink import TABLES
from stripe_platform.raw.assets import raw_key
from stripe_platform.settings import Settings
from stripe_platform.stream import reports as reports_module
from stripe_platform.stream import watching
from stripe_platform.stream.metrics import Metrics
from stripe_platform.stream.progress import Progress
from stripe_platform.stream.reports import Reports

MERCHANTS = {"merchants": Lag(3, 1.0), **dict.fromkeys(set(TABLES) - {"merchants"}, Lag(1, 0.0))}


class Rounds(threading.Event):
    """Is set once it has been waited for so many times."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._left = rounds

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        if not self._left:
            self.set()
        return self.is_set()


class Collection:
    def estimated_document_count(self) -> int:
        return 7

    def index_information(self) -> dict[str, Any]:
        return {"expires_ttl": {}, "_id_": {}}


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """What the reports go to; MongoDB and the lake answer."""

    @contextmanager
    def connect(_: Settings) -> Iterator[dict[str, Collection]]:
        yield dict.fromkeys(TABLES_OF, Collection())

    with dg.DagsterInstance.ephemeral() as made:

        @contextmanager
        def instance_of(_: Settings) -> Iterator[dg.DagsterInstance]:
            yield made

        monkeypatch.setattr(watching, "instance_of", instance_of)
        monkeypatch.setattr(watching, "connect", connect)
        monkeypatch.setattr(watching, "mongodb_lag", lambda *_: MERCHANTS)
        monkeypatch.setattr(watching, "raw_lag", lambda _: {"charges": Lag(9, 1.0)})
        monkeypatch.setattr(reports_module, "row_count", lambda *_: 40)
        yield made


def metadata(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_a_report_tells_what_the_asset_itself_tells_with_the_lag_of_its_own_topics(
    instance: dg.DagsterInstance,
) -> None:
    reports = Reports()
    reports.progressed("raw", Progress({"charges": 2}))
    reports.progressed("mongodb", Progress({"merchants": 5}, written={"merchants": 5}))
    watching.report(Settings(), reports, Rounds(1))
    assert metadata(instance, raw_key("charges")) == {"dagster/row_count": 40, "lag": 9, "rows_added": 2}
    assert metadata(instance, collection_key("merchants")) == {
        "dagster/row_count": 7,
        "indexes": ["_id_", "expires_ttl"],
        "lag": 3,
        "documents_written": 5,
    }
    assert instance.get_latest_materialization_event(collection_key("charges")) is None


@pytest.mark.parametrize("locked", ["report_runless_asset_event", "instance_of", "raw_lag"])
def test_a_report_that_failed_is_made_later_with_nothing_lost(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, locked: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner: Any = instance if locked == "report_runless_asset_event" else watching
    works, calls = getattr(owner, locked), iter([True])

    def locked_once(*arguments: Any) -> Any:
        if next(calls, False):
            raise sqlite3.OperationalError("database is locked: INSERT of a secret")
        return works(*arguments)

    monkeypatch.setattr(owner, locked, locked_once)
    reports = Reports()
    reports.progressed("raw", Progress({"charges": 2}))
    watching.report(Settings(), reports, Rounds(2))
    assert metadata(instance, raw_key("charges"))["rows_added"] == 2
    assert "OperationalError" in caplog.text
    assert "secret" not in caplog.text


def test_a_lag_that_cannot_be_measured_is_shown_as_not_known_and_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Any] = [{"charges": Lag(4, 2.0)}, ConnectionResetError("away"), {"charges": Lag(5, 3.0)}]
    seen: list[str] = []

    def lags(_: Settings, sink: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Looking(Rounds):
        def wait(self, timeout: float | None = None) -> bool:
            lines = generate_latest(metrics.registry).decode().splitlines()
            seen.extend(line for line in lines if line.startswith('stripe_platform_lag_seconds{sink="raw"}'))
            return super().wait(timeout)

    metrics = Metrics()
    monkeypatch.setattr(watching, "SINKS", {"raw": None})
    monkeypatch.setattr(watching, "_lags", lags)
    watching.measure(Settings(), metrics, Looking(3))
    assert [line.split()[1] for line in seen] == ["2.0", "NaN", "3.0"]
