import logging
from collections.abc import Iterator
from typing import Any, cast

import dagster as dg
import pytest
from dagster_dbt import DbtCliInvocation
from dagster_dbt.errors import DagsterDbtCliRuntimeError

from stripe_platform.settings import Settings
from stripe_platform.warehouse import column_lineage, dbt_events

KEYS = {"fact_charges": dg.AssetKey(["marts", "fact_charges"]), "mrr": dg.AssetKey(["marts", "mrr"])}


class Invocation:
    """A run of dbt that has made two models, and failed then if it is told to."""

    manifest: dict[str, Any] = {"nodes": {}, "sources": {}}  # noqa: RUF012
    target_path = None

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails

    def stream(self) -> Iterator[Any]:
        for name in KEYS:
            yield dg.Output(None, output_name=name)
        if self._fails:
            raise DagsterDbtCliRuntimeError("dbt's own words")


class Engine:
    def __init__(self, counts: dict[str, int] | Exception) -> None:
        self._counts = counts

    def row_counts(self, settings: Settings, models: list[str]) -> dict[str, int]:
        if isinstance(self._counts, Exception):
            raise self._counts
        return self._counts

    def stored_columns(self, settings: Settings) -> list[Any]:
        raise RuntimeError("jane@example.com")


@pytest.fixture(autouse=True)
def logs_outside_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dg, "get_dagster_logger", logging.getLogger)


def events(monkeypatch: pytest.MonkeyPatch, counts: dict[str, int] | Exception, *, fails: bool = False) -> list[Any]:
    monkeypatch.setattr(dbt_events, "engine_of", lambda settings: Engine(counts))
    invocation = cast(DbtCliInvocation, Invocation(fails=fails))
    return list(dbt_events.events_with_row_counts(invocation, KEYS, Settings()))


def test_a_model_that_was_not_counted_comes_without_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, other = events(monkeypatch, {"fact_charges": 3})
    assert counted.metadata["dagster/row_count"].value == 3
    assert "dagster/row_count" not in other.metadata


def test_a_count_that_fails_is_said_without_the_engines_words_and_the_build_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(events(monkeypatch, RuntimeError("jane@example.com"))) == 2
    told = caplog.text
    assert "no numbers of rows are shown for this build: RuntimeError" in told
    assert "jane" not in told


def test_dbts_failure_is_not_hidden_by_a_count_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, int] | Exception] = [KeyError("mrr"), {}]
    for counts in answers:
        with pytest.raises(DagsterDbtCliRuntimeError, match="dbt's own words"):
            events(monkeypatch, counts, fails=True)


def test_a_lineage_that_is_not_found_is_said_and_the_build_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(column_lineage, "engine_of", lambda settings: Engine({}))
    invocation = Invocation()
    traced = column_lineage.events_with_column_lineage(
        invocation.stream(), cast(DbtCliInvocation, invocation), KEYS, Settings()
    )
    assert len(list(traced)) == 2
    assert "no lineage of columns is shown for this build: RuntimeError" in caplog.text
