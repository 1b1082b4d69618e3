import os
import socket
from pathlib import Path

import pytest

from stripe_platform.doctor import machine
from stripe_platform.doctor.finding import State
from stripe_platform.doctor.machine import (
    judge_files,
    judge_memory,
    judge_platform,
    judge_port,
    judge_program,
    judge_room,
    look_at_ports,
    pinned_versions,
)
from stripe_platform.local.artifacts import cache_folder, kafka_class_path, pinned
from stripe_platform.local.errors import MissingLibrary
from stripe_platform.settings import Settings

OK, WARNING, PROBLEM = State.OK, State.WARNING, State.PROBLEM


@pytest.mark.parametrize(
    ("system", "processor", "state"),
    [("Linux", "x86_64", OK), ("Linux", "aarch64", PROBLEM), ("Darwin", "x86_64", PROBLEM)],
)
def test_the_servers_run_on_x86_64_linux_alone(system: str, processor: str, state: State) -> None:
    assert judge_platform(system, processor, "3.12.1").state is state


@pytest.mark.parametrize(("missing", "state"), [(None, WARNING), ([], OK), (["a.jar"], PROBLEM)])
def test_an_empty_cache_is_filled_by_a_start_and_a_broken_one_is_not(missing: list[str] | None, state: State) -> None:
    assert judge_files("Kafka's files", cache_folder() / "kafka-1", missing).state is state


def test_a_broken_cache_is_removed_whole_folder_by_folder() -> None:
    finding = judge_files("Debezium's files", cache_folder() / "debezium-1" / "inside", [f"{n}.jar" for n in "abcde"])
    assert "a.jar, b.jar, c.jar and 2 more" in finding.found
    assert f"rm -r {cache_folder() / 'debezium-1'}`" in (finding.remedy or "")


def test_a_jar_that_is_gone_from_the_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = Settings(stripe_platform_home=tmp_path)
    assert {finding.state for finding in machine.look_at_jars(settings)} == {WARNING}
    folder = Path(kafka_class_path()).parent
    folder.mkdir(parents=True)
    names = [artifact.file_name for artifact in pinned("kafka")]
    for name in names[1:]:
        (folder / name).touch()
    kafka, _ = machine.look_at_jars(settings)
    assert (kafka.state, names[0] in kafka.found) == (PROBLEM, True)
    (folder / names[0]).touch()
    assert machine.look_at_jars(settings)[0].state is OK


@pytest.mark.parametrize(
    ("status", "said", "state", "part"),
    [
        (0, "db version v6.0.5\nmore 1.2", OK, "6.0.5"),
        (127, "mongod: libssl.so.3: cannot open shared object file", PROBLEM, "libssl.so.3"),
        (132, "", PROBLEM, "status 132"),
    ],
)
def test_a_program_is_judged_by_what_it_says_of_its_version(status: int, said: str, state: State, part: str) -> None:
    finding = judge_program("mongod", "/usr/bin/mongod", status, said)
    assert (finding.state, part in finding.found) == (state, True)


def test_a_mongod_without_its_libraries_is_told_by_library_and_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "mongod"
    broken.write_text('#!/bin/sh\necho "libcurl.so.4: cannot open shared object file" >&2; exit 127\n')
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(MissingLibrary, match=r"libcurl\.so\.4.*apt-get install libcurl4"):
        machine.look_at_mongod(Settings(stripe_platform_home=tmp_path))


@pytest.mark.parametrize(
    ("available", "is_up", "state"),
    [
        (2_000_000_000, False, OK),
        (1_999_999_999, False, WARNING),
        (400_000_000, True, OK),
        (200_000_000, True, WARNING),
    ],
)
def test_a_running_stack_needs_less_memory_than_one_to_come(available: int, is_up: bool, state: State) -> None:
    assert judge_memory(available, is_up=is_up).state is state


@pytest.mark.parametrize(
    ("free", "is_vital", "state"),
    [(999, True, PROBLEM), (1_000, True, WARNING), (1_999, True, WARNING), (2_000, True, OK), (999, False, WARNING)],
)
def test_room_below_the_limit_is_a_problem_and_near_it_a_warning(free: int, is_vital: bool, state: State) -> None:
    assert judge_room("the home", Path("/srv"), free, 1_000, is_vital=is_vital).state is state


@pytest.mark.parametrize(
    ("holder", "is_free", "is_ours", "state", "part"),
    [
        (None, True, False, OK, "free"),
        ("java (pid 7)", False, True, OK, "our Kafka"),
        ("nginx (pid 8)", False, False, PROBLEM, "nginx (pid 8)"),
        (None, False, False, PROBLEM, "another user"),
    ],
)
def test_a_port_is_free_ours_or_somebodys(
    holder: str | None, is_free: bool, is_ours: bool, state: State, part: str
) -> None:
    finding = judge_port("Kafka", "KAFKA_PORT", 9092, holder, is_free=is_free, is_ours=is_ours)
    assert (finding.state, part in finding.found) == (state, True)
    assert state is OK or "KAFKA_PORT" in (finding.remedy or "")


def test_a_foreign_holder_of_a_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        settings = Settings(stripe_platform_home=tmp_path / "home", connect_port=port)
        (finding,) = [f for f in look_at_ports(settings) if "CONNECT_PORT" in f.looked_at]
    assert finding.state is PROBLEM
    assert f"pid {os.getpid()}" in finding.found


def test_every_pinned_server_has_its_version() -> None:
    versions = pinned_versions()
    assert set(versions) == {"kafka", "connect", "debezium", "postgres"}
    assert versions["kafka"] == versions["connect"]
