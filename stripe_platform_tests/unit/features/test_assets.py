"""What a drain tells Dagster of each collection, and of the tables that stopped."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from stripe_platform.cdc.drain_runs import STOPPED_TAG
from stripe_platform.cdc.report import TableDrained, TablesStopped
from stripe_platform.errors import StripePlatformError
from stripe_platform.features import assets
from stripe_platform.features.assets import DRAIN_OP, TABLES_OF, collection_key, collections, fraud_decisions
from stripe_platform.features.report import DocumentsReport
from stripe_platform.features.sink import TABLES
from stripe_platform.jobs import oltp_to_mongodb
from stripe_platform.settings import Settings

LAGS = {"merchants": 3, "charges": 10, "card_fingerprints": 1}
REPORT = DocumentsReport(
    {table: TableDrained(0, 0, {0: 0}, {0: 5}, lag) for table, lag in LAGS.items()},
    0.1,
    applied=0,
    stale=0,
    documents=2,
    dead_letters=4,
    written={"merchants": 2},
)


class Collection:
    def estimated_document_count(self) -> int:
        return 7

    def index_information(self) -> dict[str, Any]:
        return {"_id_": {}}

    def count_documents(self, _: Any) -> int:
        return 1


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tables and bounds that were drained, the time limit in seconds and whether it stays, drain after drain."""
    asked: list[Any] = []

    @contextmanager
    def open_store(_: Settings) -> Iterator[Any]:
        yield SimpleNamespace(documents=dict.fromkeys(TABLES_OF, Collection()))

    def drain(_: Settings, tables: Any, *, store: Any, bounds: Any, limit: timedelta, follow: Any) -> DocumentsReport:
        asked.append((sorted(tables), bounds, limit.total_seconds(), follow is not None))
        return REPORT

    monkeypatch.setattr(assets, "open_store", open_store)
    monkeypatch.setattr(assets, "drain", drain)
    return asked


def run(instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    defs = dg.Definitions(
        assets=[collections, fraud_decisions], jobs=[oltp_to_mongodb], resources={"settings": Settings()}
    )
    job = defs.resolve_job_def(oltp_to_mongodb.name)
    run_config = {"ops": {DRAIN_OP: {"config": config}}}
    return job.execute_in_process(run_config=run_config, instance=instance, raise_on_error=False)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_each_collection_tells_its_own_documents_and_the_lag_of_its_own_topics(
    instance: dg.DagsterInstance, drained: list[Any]
) -> None:
    told = {
        event.asset_key: {name: value.value for name, value in event.metadata.items()}
        for event in run(instance).asset_materializations_for_node(DRAIN_OP)
    }
    assert {key.path[1] for key in told} == TABLES_OF.keys()
    merchants = told[collection_key("merchants")]
    assert (merchants["lag"], merchants["documents_written"]) == (3, 2)
    assert merchants["offsets_to"] == {"merchants": {"0": 5}}
    # Of tables that stopped before they were read nobody knows the lag, and 0 would be the wrong one.
    assert "lag" not in told[collection_key("charges")]
    assert told[collection_key("customers")]["documents_written"] == 0
    letters = told[collection_key("dead_letters")]
    assert (letters["documents_written"], letters["untriaged"]) == (4, 1)


def test_bounds_name_the_tables_that_are_drained_and_without_any_all_are(
    instance: dg.DagsterInstance, drained: list[Any]
) -> None:
    run(instance, bounds={"refunds": {"0": 7}})
    run(instance)
    assert drained == [(["refunds"], {"refunds": {0: 7}}, 45.0, False), (sorted(TABLES), None, 45.0, False)]


def test_a_run_that_is_to_stay_ends_before_its_job_is_taken_for_dead(
    instance: dg.DagsterInstance, drained: list[Any]
) -> None:
    assert run(instance, quiet_seconds=5.0).success
    ((_, _, limit, stays),) = drained
    assert stays
    assert limit + 60 <= int((oltp_to_mongodb.tags or {})["dagster/max_runtime"])


def test_a_run_in_which_tables_stopped_tells_of_the_others_and_names_them_in_a_tag(
    instance: dg.DagsterInstance, drained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise TablesStopped(REPORT, {"refunds": StripePlatformError("its column was dropped")})

    monkeypatch.setattr(assets, "drain", stop)
    result = run(instance)
    assert not result.success
    assert len(result.asset_materializations_for_node(DRAIN_OP)) == len(TABLES_OF)
    failed = instance.get_run_by_id(result.run_id)
    assert failed is not None
    assert json.loads(failed.tags[STOPPED_TAG]) == {"refunds": "StripePlatformError"}
