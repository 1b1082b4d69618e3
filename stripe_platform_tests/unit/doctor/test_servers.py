from pathlib import Path

import pytest

from stripe_platform.doctor.finding import State
from stripe_platform.doctor.servers import (
    CLOCK_LIMIT_S,
    Life,
    judge_clock,
    judge_daemons,
    judge_life,
    judge_schema,
    judge_server,
)
from stripe_platform.local.stack import ServerState
from stripe_platform.oltp.migrate import Migration

OK, WARNING, PROBLEM = State.OK, State.WARNING, State.PROBLEM


@pytest.mark.parametrize(
    ("life", "left", "state", "remedy"),
    [
        (Life.UP, 9, OK, ""),
        (Life.DOWN, 0, WARNING, "make up"),
        (Life.DEAD, 3, PROBLEM, "stripe-platform down"),
    ],
)
def test_a_stack_that_is_down_is_a_warning_and_what_a_dead_one_left_is_a_problem(
    life: Life, left: int, state: State, remedy: str
) -> None:
    finding = judge_life(life, left)
    assert finding.state is state
    assert remedy in (finding.remedy or "")


def server(state: str, name: str = "postgres") -> ServerState:
    return ServerState(name=name, title=name.title(), state=state, pid=42, ports={}, log=Path("/x"))


@pytest.mark.parametrize(
    ("word", "name", "state"),
    [
        ("RUNNING", "postgres", OK),
        ("STARTING", "postgres", OK),
        ("STOPPED", "postgres", PROBLEM),
        ("STOPPED", "dagster", WARNING),
        ("BACKOFF", "dagster", PROBLEM),
        ("FATAL", "kafka", PROBLEM),
        ("EXITED", "connect", PROBLEM),
    ],
)
def test_a_server_is_judged_by_its_supervisor_s_word(word: str, name: str, state: State) -> None:
    finding = judge_server(server(word, name), None, {}, {})
    assert finding.state is state
    assert state is not PROBLEM or f"stripe-platform logs {name}" in (finding.remedy or "")


@pytest.mark.parametrize(("word", "state"), [("RUNNING", PROBLEM), ("STARTING", WARNING)])
def test_a_server_that_does_not_answer_is_a_problem_unless_it_has_just_been_started(word: str, state: State) -> None:
    finding = judge_server(server(word), "it does not answer", {}, {})
    assert (finding.state, "it does not answer" in finding.found) == (state, True)


@pytest.mark.parametrize(
    ("runs", "installed", "state"),
    [
        ("16.15", "16.15.0", OK),
        ("16.15.0", "16.15.0", OK),
        ("3.6.3.Final", "3.6.3.Final", OK),
        ("16.1", "16.15.0", WARNING),
        ("16.14", "16.15.0", WARNING),
    ],
)
def test_a_server_older_than_what_is_installed_wants_a_restart(runs: str, installed: str, state: State) -> None:
    finding = judge_server(server("RUNNING"), None, {"postgres": runs}, {"postgres": installed})
    assert finding.state is state
    assert runs in finding.found


def test_a_daemon_without_heartbeat_is_a_problem_and_one_that_never_beat_is_just_starting() -> None:
    assert judge_daemons(3, {}, 100.0).state is OK
    assert judge_daemons(3, {"SENSOR": None}, 100.0).state is WARNING
    finding = judge_daemons(3, {"SENSOR": 10.0}, 100.0)
    assert (finding.state, "SENSOR (90 s ago)" in finding.found) == (PROBLEM, True)


MIGRATIONS = (Migration(1, "0001_one.sql", "select 1"), Migration(2, "0002_two.sql", "select 2"))
APPLIED = {migration.name: migration.checksum for migration in MIGRATIONS}


@pytest.mark.parametrize(
    ("applied", "state", "part"),
    [
        (APPLIED, OK, "2 migrations"),
        (None, PROBLEM, "not migrated"),
        ({"0001_one.sql": APPLIED["0001_one.sql"]}, PROBLEM, "0002_two.sql"),
        ({**APPLIED, "0001_one.sql": "0"}, PROBLEM, "edited"),
        ({**APPLIED, "0003_three.sql": "0"}, PROBLEM, "0003_three.sql"),
    ],
    ids=["all", "none", "pending", "edited", "newer"],
)
def test_the_schema_has_the_migrations_of_this_version(applied: dict[str, str] | None, state: State, part: str) -> None:
    finding = judge_schema(MIGRATIONS, applied)
    assert (finding.state, part in finding.found) == (state, True)


@pytest.mark.parametrize(
    ("ahead", "state"), [(0.0, OK), (-CLOCK_LIMIT_S, OK), (CLOCK_LIMIT_S + 1, PROBLEM), (-CLOCK_LIMIT_S - 1, PROBLEM)]
)
def test_clocks_may_differ_by_little_in_either_direction(ahead: float, state: State) -> None:
    assert judge_clock(ahead).state is state
