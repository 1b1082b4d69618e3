"""A column under the name of an earlier one is accepted only once the living rows were read again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from stripe_platform.cdc.snapshot import SnapshotTaken
from stripe_platform.raw import acceptance
from stripe_platform.raw.acceptance import Acceptance, accept_schema, told
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.raw.schema import NUMBER, FollowedColumn, SchemaChanged, SchemaNotAcceptable
from stripe_platform.settings import Settings

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TABLE = "refunds"


def row(number: int, kind: pa.DataType | None = None) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string(), metadata={NUMBER: "1"}),
            pa.field("reason", kind or pa.string(), metadata={NUMBER: str(number)}),
        ]
    )


class Servers:
    """What PostgreSQL, the connector and Kafka say: the column is another one, and each snapshot ends at offset 40."""

    def __init__(self) -> None:
        self.row = row(3)
        self.snapshots: list[datetime] = []
        self.requested_at = [NOON]

    def take_snapshots(self, _: Settings, tables: list[str], *, again: bool, limit: timedelta) -> list[SnapshotTaken]:
        assert (tables, again) == ([TABLE], True)
        self.snapshots.append(self.requested_at.pop(0))
        return [SnapshotTaken(TABLE, "a", 5, self.snapshots[-1], NOON + timedelta(minutes=1))]


@pytest.fixture
def servers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Servers:
    ChangeLog.open(settings, TABLE, row=row(2), topic_id="a")
    servers = Servers()
    monkeypatch.setattr(acceptance, "table_definition", lambda *_: servers.row)
    monkeypatch.setattr(acceptance, "postgres_clock", lambda _: NOON)
    monkeypatch.setattr(acceptance, "last_stable_offsets", lambda *_: {TABLE: {0: 40}})
    monkeypatch.setattr(acceptance, "take_snapshots", servers.take_snapshots)
    return servers


def log(settings: Settings) -> ChangeLog:
    found = ChangeLog.existing(settings, TABLE)
    assert found is not None
    return found


def test_the_rows_are_read_again_and_no_cut_from_before_their_end_is_built_on(
    settings: Settings, servers: Servers
) -> None:
    accepted = accept_schema(settings, TABLE)
    assert accepted == Acceptance((), (), {}, ("reason",))
    assert "reason: another column than before; all living rows were read again" in told(TABLE, accepted)
    assert log(settings).whole_from == {0: 40}
    assert log(settings).followed["reason"] == FollowedColumn("string", 3)
    assert accept_schema(settings, TABLE).is_empty
    assert servers.snapshots == [NOON]


def test_a_snapshot_that_was_under_way_counts_for_nothing(settings: Settings, servers: Servers) -> None:
    servers.requested_at = [NOON - timedelta(seconds=1), NOON]
    accept_schema(settings, TABLE)
    assert len(servers.snapshots) == 2


@pytest.mark.parametrize("step", ["take_snapshots", "refuse_cuts_below", "accept"])
def test_an_acceptance_that_ends_early_has_accepted_nothing_and_is_done_by_the_next(
    settings: Settings, servers: Servers, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    servers.requested_at = [NOON, NOON]
    with monkeypatch.context() as patched:
        patched.setattr(acceptance if step == "take_snapshots" else ChangeLog, step, killed)
        with pytest.raises(KeyboardInterrupt):
            accept_schema(settings, TABLE)
    with pytest.raises(SchemaChanged):
        log(settings).follow(servers.row)
    accept_schema(settings, TABLE)
    assert log(settings).whole_from == {0: 40}
    log(settings).follow(servers.row)


def test_what_another_process_accepted_meanwhile_is_looked_at_anew(
    settings: Settings, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_and_meet(*arguments: Any, **named: Any) -> list[SnapshotTaken]:
        log(settings).accept(row(4))
        servers.row = row(4)
        return servers.take_snapshots(*arguments, **named)

    monkeypatch.setattr(acceptance, "take_snapshots", take_and_meet)
    assert accept_schema(settings, TABLE).is_empty
    assert log(settings).followed["reason"].number == 4


def test_a_type_that_nothing_bridges_is_refused_before_rows_are_read(settings: Settings, servers: Servers) -> None:
    servers.row = row(3, pa.int32())
    with pytest.raises(SchemaNotAcceptable):
        accept_schema(settings, TABLE)
    assert servers.snapshots == []
