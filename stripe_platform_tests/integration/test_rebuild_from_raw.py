"""From PostgreSQL through Kafka into MongoDB and raw: the documents built anew from raw are those that were drained."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.holes import ChangesLost
from stripe_platform.cdc.report import TablesStopped
from stripe_platform.cli import app
from stripe_platform.features import checks, raw_source
from stripe_platform.features.drain import drain, drain_up_to
from stripe_platform.features.hold import COLLECTION, ID, Held, holding
from stripe_platform.features.offsets import stored_offsets
from stripe_platform.features.projection import Store
from stripe_platform.features.rebuild import GROUPS, rebuild
from stripe_platform.features.sink import TABLES, open_store
from stripe_platform.local.environment import environment
from stripe_platform.oltp.simulator.history import simulate_history
from stripe_platform.raw.change_log import ChangeLog, row_count
from stripe_platform.settings import Settings

LIMIT = timedelta(seconds=60)


@pytest.fixture(scope="module")
def platform(new_platform: Callable[[], Settings]) -> Settings:
    """A platform of its own, whose payments are in MongoDB and not in raw."""
    settings = new_platform()
    simulate_history(settings, 400, 60, until=date(2026, 11, 1))
    cut = make_cut(settings, timeout=LIMIT)
    with open_store(settings) as store:
        drain_up_to(settings, TABLES, cut.offsets, store=store)
    return settings


@pytest.fixture
def store(platform: Settings) -> Iterator[Store]:
    with open_store(platform) as opened:
        yield opened


def test_all_collections_built_anew_are_those_that_were_drained(
    platform: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(platform).items():
        monkeypatch.setenv(name, value)
    offsets = stored_offsets(store.documents)
    assert row_count(platform, "charges") == 0
    answer = CliRunner().invoke(app, ["rebuild", "features/charges", "customers", "merchants", "events"])
    assert answer.exit_code == 0, answer.output
    assert "built anew from the raw change log: charges, source_rows" in answer.output
    assert "differed" not in answer.output
    assert answer.output.count("equal") == sum(len(group.collections) for group in GROUPS)
    assert stored_offsets(store.documents).next_offsets(TABLES) == offsets.next_offsets(TABLES)
    assert row_count(platform, "charges") >= store.documents["charges"].count_documents({}) >= 400


def test_a_drain_that_meets_a_hold_ends_and_the_next_one_goes_on(platform: Settings, store: Store) -> None:
    with holding(store.documents, ["charges"]):
        report = drain(platform, TABLES, store=store)
        assert (report.rows, report.moved) == (0, False)
        assert report.held is not None
        with pytest.raises(Held):
            drain_up_to(platform, ["merchants"], {"merchants": {0: 1}}, store=store)
    assert drain(platform, TABLES, store=store).held is None


@pytest.mark.parametrize("lost", [{"topic_id": "of an earlier topic"}, {"next": {"0": 0}}], ids=["topic", "offsets"])
def test_what_can_never_go_on_from_its_offsets_goes_on_from_raws(
    platform: Settings, store: Store, lost: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = store.documents[COLLECTION]
    drain(platform, ["merchants"], store=store)
    sink.update_one({"_id": ID}, {"$set": {f"offsets.merchants.{name}": value for name, value in lost.items()}})
    if "next" in lost:
        # As if the topic had deleted what is older.
        monkeypatch.setattr(raw_source, "beginning_offsets", lambda _, tables: {table: {0: 1} for table in tables})
    else:
        with pytest.raises(TablesStopped, match="stripe-platform rebuild merchants"):
            drain(platform, ["merchants"], store=store)
    (rebuilt,) = rebuild(platform, store, ["merchants"])
    assert rebuilt.differed == {"merchants": 0}
    log = ChangeLog.existing(platform, "merchants")
    assert log is not None
    taken = stored_offsets(store.documents).tables["merchants"]
    assert (taken.topic_id, taken.next) == (log.topic_id, log.next_offsets)
    assert drain(platform, ["merchants"], store=store).rows == 0


def test_a_hole_waits_for_raw_and_fails_the_check_until_the_documents_were_built_anew(
    platform: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> dg.AssetCheckResult:
        result: Any = checks.holes_are_made_up_for(settings=platform)
        return result  # type: ignore[no-any-return]

    assert check().passed
    monkeypatch.setattr(raw_source, "known_holes", lambda _: {"merchants": "a hole"})
    failed = check()
    assert not failed.passed
    assert "stripe-platform rebuild merchants" in str(failed.metadata["remedy"].value)
    with pytest.raises(ChangesLost, match="stripe-platform recover"):
        rebuild(platform, store, ["merchants"])
    monkeypatch.setattr(raw_source, "not_made_up_for", lambda *_: {})
    rebuild(platform, store, ["merchants"])
    assert check().passed
