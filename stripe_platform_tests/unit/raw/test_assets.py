"""What a drain tells Dagster: columns only when they changed, and the tables that stopped."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from stripe_platform.cdc.drain_runs import STOPPED_TAG
from stripe_platform.cdc.report import DrainReport, TableDrained, TablesStopped
from stripe_platform.raw import assets
from stripe_platform.raw.assets import change_logs, raw_key
from stripe_platform.raw.change_log import ChangeLog, TopicRecreated, log_folder
from stripe_platform.settings import Settings

ROW = pa.schema({"id": pa.string()})
WIDER = pa.schema([*ROW, pa.field("fee", pa.int64())])
REPORT = DrainReport({"refunds": TableDrained(rows=0, batches=0, begin={0: 0}, end={0: 0}, lag=0)}, 0.1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(autouse=True)
def quiet_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "drain", lambda *_, **__: REPORT)


def materialized(settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [change_logs],
        selection=[raw_key("refunds")],
        resources={"settings": settings},
        instance=instance,
        raise_on_error=False,
    )


def metadata(settings: Settings, instance: dg.DagsterInstance) -> dict[str, Any]:
    (event,) = materialized(settings, instance).asset_materializations_for_node("raw")
    return {name: value.value for name, value in event.metadata.items()}


def test_the_columns_are_reported_once_and_again_when_they_have_changed(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    log = ChangeLog.open(settings, "refunds", row=ROW, topic_id="a")
    first = metadata(settings, instance)
    assert first["dagster/column_schema"].columns[0].name == "id"
    second = metadata(settings, instance)
    assert "dagster/column_schema" not in second
    assert second["dagster/row_count"] == 0
    log.follow(WIDER)
    assert "fee" in [column.name for column in metadata(settings, instance)["dagster/column_schema"].columns]
    assert "dagster/column_schema" not in metadata(settings, instance)


def test_a_run_in_which_tables_stopped_names_them_in_a_tag(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise TablesStopped(REPORT, {"refunds": TopicRecreated("refunds", log_folder(settings, "refunds"))})

    monkeypatch.setattr(assets, "drain", stop)
    result = materialized(settings, instance)
    assert not result.success
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert json.loads(run.tags[STOPPED_TAG]) == {"refunds": "TopicRecreated"}
