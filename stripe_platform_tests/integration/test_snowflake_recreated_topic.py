"""A topic that was created again, on Snowflake: the remedy that docs/snowflake.md gives, as it stands there."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stripe_platform.cdc.cut import Cut
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform.warehouse.snowflake.build import prepare_build
from stripe_platform.warehouse.snowflake.load import LoadedFromAnotherTopic
from stripe_platform_tests.integration.snowflake_account import account, rows, set_up
from stripe_platform_tests.integration.test_same_answers import dbt
from stripe_platform_tests.integration.test_warehouse import Lake, charge, key

TABLE = "charges"


class Recreated(Lake):
    """The log of a stack whose topic of one table was created again."""

    def cut(self) -> Cut:
        cut = super().cut()
        return replace(cut, topic_ids=cut.topic_ids | {TABLE: "the topic of now"})

    def _open(self, table: str) -> ChangeLog:
        topic_id = "the topic of now" if table == TABLE else f"{table}-topic"
        return ChangeLog.open(self.settings, table, row=self.rows[table], topic_id=topic_id)


def documented_remedy() -> list[str]:
    """What docs/snowflake.md says to do about a table that is to be loaded anew."""
    _, _, section = (PROJECT_ROOT / "docs" / "snowflake.md").read_text().partition("## A table from the beginning")
    return [statement.replace("<table>", TABLE) for statement in re.findall("`((?:drop|delete) [^`]+)`", section)]


def lake_in(home: Path, snowflake: Settings, kind: type[Lake] = Lake) -> Lake:
    """A change log of its own beside the one account."""
    lake = kind(home)
    lake.settings = snowflake.model_copy(update={"stripe_platform_home": home})
    lake.settings.warehouse_folder.mkdir(parents=True)
    return lake


@pytest.mark.timeout(600)
def test_the_documented_way_takes_in_a_table_of_a_topic_that_was_created_again(tmp_path: Path) -> None:
    with account(tmp_path) as snowflake:
        set_up(snowflake)
        before = lake_in(tmp_path / "before", snowflake)
        before.write(TABLE, charge(key(1), 1), charge(key(2), 2))
        prepare_build(before.settings, before.cut())
        assert dbt(before.settings, "run", "--select", "state_charges") == 0
        now = lake_in(tmp_path / "now", snowflake, Recreated)
        now.write(TABLE, charge(key(3), 3))
        held = rows(snowflake, "select number, cut_id from meta.build")
        with pytest.raises(LoadedFromAnotherTopic, match=r"raw\.charges.*created again"):
            prepare_build(now.settings, now.cut())
        assert rows(snowflake, "select number, cut_id from meta.build") == held
        for statement in documented_remedy():
            rows(snowflake, statement)
        cut = now.cut()
        assert prepare_build(now.settings, cut).cut == cut
        assert dbt(now.settings, "run", "--select", "state_charges") == 0
        assert rows(snowflake, "select id from staging_state.state_charges") == [(key(3),)]
