"""A table that cannot go on: the marts stay as they were published last until the named command brings it back."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from stripe_platform.cdc.broker import admin
from stripe_platform.cdc.cut import make_cut
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.cdc.report import TablesStopped
from stripe_platform.cdc.topics import topic_for
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import MIGRATIONS, migrate
from stripe_platform.raw.change_log import next_offsets
from stripe_platform.raw.drain import drain
from stripe_platform.settings import Settings

MERCHANTS = "select business_name from marts.dim_merchants where is_current and not is_deleted order by all"


@pytest.fixture(scope="module")
def line(new_platform: Callable[[], Settings], command_line: Any) -> Any:
    return command_line(new_platform())


def add_merchant(settings: Settings, name: str) -> None:
    with connect(settings) as postgres:
        postgres.execute(
            "INSERT INTO payments.merchants (business_name, mcc, country, default_currency) "
            "VALUES (%s, '5411', 'DE', 'eur')",
            [name],
        )


def names(line: Any) -> list[str]:
    return [row["business_name"] for row in line.rows(MERCHANTS)]


def run_fails(line: Any) -> str:
    """What the job says, which must fail."""
    with line.start("run", "oltp_to_warehouse") as process:
        out, error = process.communicate(timeout=240)
    assert process.returncode == 1
    return str(out + error)


def test_marts_stay_at_their_last_good_state_until_the_lost_rows_are_recovered_and_the_schema_is_accepted(
    line: Any, tmp_path: Path
) -> None:
    settings = line.settings
    add_merchant(settings, "first")
    line("run", "oltp_to_warehouse")
    add_merchant(settings, "lost unread")
    begin, end = next_offsets(settings, "merchants")[0], delete_all_records(settings)
    drop_a_column(settings, tmp_path)
    add_merchant(settings, "behind the drop")

    said = run_fails(line)
    assert "column statement_descriptor is gone" in said
    assert "stripe-platform accept-schema merchants" in said
    line("accept-schema", "merchants")
    with pytest.raises(TablesStopped, match=rf"\[{begin}, {end}\) were deleted.*stripe-platform recover merchants"):
        drain(settings, ["merchants"])
    assert names(line) == ["first"]

    line("recover", "merchants", "countries")
    line("run", "oltp_to_warehouse")
    assert names(line) == ["behind the drop", "first", "lost unread"]


def drop_a_column(settings: Settings, folder: Path) -> None:
    for file in MIGRATIONS.iterdir():
        if file.name.endswith(".sql"):
            (folder / file.name).write_text(file.read_text())
    drop = "ALTER TABLE payments.merchants DROP COLUMN statement_descriptor CASCADE"
    (folder / "9000_of_a_test.sql").write_text(drop)
    migrate(settings, folder)


def delete_all_records(settings: Settings) -> int:
    """What retention does, at once; where the topic begins then."""
    make_cut(settings, timeout=timedelta(seconds=60))
    end = last_stable_offsets(settings, ["merchants"])["merchants"][0]
    # In a variable: a client without a reference is closed, and its answers never come.
    client = admin(settings)
    for answer in client.delete_records([TopicPartition(topic_for("merchants"), 0, end)]).values():
        answer.result(60)
    return end
