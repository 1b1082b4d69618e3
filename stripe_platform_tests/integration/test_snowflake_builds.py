"""Two hosts that build on one Snowflake account, which is meant for one: neither publishes what the other began."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from snowflake.connector import SnowflakeConnection

from stripe_platform.settings import Settings
from stripe_platform.warehouse.snowflake import build
from stripe_platform.warehouse.snowflake.build import (
    AnotherHostBuilds,
    NothingTested,
    mark_tested,
    prepare_build,
    publish,
)
from stripe_platform.warehouse.snowflake.connection import run
from stripe_platform_tests.integration.snowflake_account import account, rows, set_up
from stripe_platform_tests.integration.test_warehouse import Lake, charge, key


@pytest.fixture
def snowflake(tmp_path: Path) -> Iterator[Settings]:
    with account(tmp_path) as settings:
        set_up(settings)
        yield settings


@pytest.fixture
def lake(snowflake: Settings, tmp_path: Path) -> Lake:
    """A change log of one charge."""
    lake = Lake(tmp_path)
    lake.settings = snowflake
    lake.settings.warehouse_folder.mkdir(parents=True, exist_ok=True)
    lake.write("charges", charge(key(1), 1))
    return lake


def before(monkeypatch: pytest.MonkeyPatch, what: str, act: Callable[[], object]) -> None:
    """Have another host do something before the first statement that does `what`."""
    actions = [act]

    def watched(connection: SnowflakeConnection, doing: str, *arguments: Any) -> list[tuple[Any, ...]]:
        if doing == what and actions:
            actions.pop()()
        return run(connection, doing, *arguments)

    monkeypatch.setattr(build, "run", watched)


def builds(settings: Settings) -> list[tuple[Any, ...]]:
    return rows(settings, "select number, is_tested from meta.build")


@pytest.mark.parametrize("what", ["make the table of builds", "end the build before"])
def test_of_two_first_builds_at_once_one_goes_on_and_the_next_one_too(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patched:
        before(patched, what, lambda: prepare_build(lake.settings, lake.cut()))
        with pytest.raises(AnotherHostBuilds):
            prepare_build(lake.settings, lake.cut())
    assert builds(lake.settings) == [(1, False)]
    assert prepare_build(lake.settings, lake.cut()).number == 2


def test_a_build_whose_place_another_one_took_is_not_marked_as_tested(lake: Lake) -> None:
    ours = prepare_build(lake.settings, lake.cut())
    theirs = prepare_build(lake.settings, lake.cut())
    with pytest.raises(AnotherHostBuilds):
        mark_tested(lake.settings, ours)
    with pytest.raises(NothingTested):
        publish(lake.settings)
    mark_tested(lake.settings, theirs)
    assert builds(lake.settings) == [(2, True)]


def test_marts_that_another_build_may_have_changed_while_they_were_cloned_are_not_published(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(lake.settings, "create table marts_build.fact_charges as select 1 as amount")
    mark_tested(lake.settings, prepare_build(lake.settings, lake.cut()))
    publish(lake.settings)
    rows(lake.settings, "update marts_build.fact_charges set amount = 2")
    mark_tested(lake.settings, prepare_build(lake.settings, lake.cut()))
    with monkeypatch.context() as patched:
        before(patched, "clone the tested marts", lambda: prepare_build(lake.settings, lake.cut()))
        with pytest.raises(AnotherHostBuilds):
            publish(lake.settings)
    assert rows(lake.settings, "select amount from marts.fact_charges") == [(1,)]
