"""The local stack on its real servers: starts, mends itself, says what is wrong, leaves nothing behind."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient

from stripe_platform.local import artifacts, credentials, stack
from stripe_platform.local.errors import PortTaken, ServerFailed
from stripe_platform.local.ports import is_free
from stripe_platform.local.server import run_folder
from stripe_platform.local.supervisor import LONGEST_SOCKET_PATH, Supervisor, socket_path
from stripe_platform.local.survivors import processes_of, wait_for_end
from stripe_platform.settings import Settings

NAMES = {server.name for server in stack.SERVERS}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def pids(settings: Settings) -> dict[str, int | None]:
    return {state.name: state.pid for state in stack.server_states(settings) if state.name in NAMES}


def answers(settings: Settings) -> bool:
    return all(server.why_not_ready(settings) is None for server in stack.SERVERS)


def cluster_id(settings: Settings) -> str:
    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 0})
    return str(client.describe_cluster(request_timeout=10).result(10).cluster_id)


@pytest.fixture(scope="module")
def servers(new_stack: Callable[[], Settings]) -> Iterator[Settings]:
    settings = new_stack()
    yield settings
    stack.stop(settings)


@pytest.fixture
def stopped(new_settings: Callable[..., Settings]) -> Iterator[Settings]:
    settings = new_settings()
    yield settings
    stack.stop(settings)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.fill_cache()
    resolve = socket.getaddrinfo

    def only_this_machine(host: str | None, *rest: object, **named: object) -> object:
        assert host in ("127.0.0.1", "localhost"), f"{host} was asked for without a network"
        return resolve(host, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", only_this_machine)


def test_a_second_start_changes_nothing(servers: Settings) -> None:
    before = pids(servers)
    report = stack.start(servers)
    assert report.started == ()
    assert pids(servers) == before
    assert None not in before.values()


def test_servers_listen_on_this_machine_alone(servers: Settings) -> None:
    ours = {process.pid for process in processes_of(servers.home)}
    listening = {
        c.laddr.ip
        for c in psutil.net_connections("tcp")
        if c.pid in ours and c.status == psutil.CONN_LISTEN and c.laddr
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_postgresql_is_set_up_for_change_data_capture(servers: Settings) -> None:
    with psycopg.connect(servers.postgres_conninfo) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("wal_level", "max_slot_wal_keep_size", "timezone", "search_path", "fsync")
        }
    assert shown == {
        "wal_level": ("logical",),
        "max_slot_wal_keep_size": ("10GB",),
        "timezone": ("UTC",),
        "search_path": ("payments, public",),
        "fsync": ("off",),
    }


def test_mongodb_has_transactions(servers: Settings) -> None:
    client: MongoClient[dict[str, object]] = MongoClient(servers.mongodb_host, servers.mongodb_port, timeoutMS=10_000)
    with client, client.start_session() as session, session.start_transaction():
        client["probe"]["rows"].insert_one({"kept": True}, session=session)


def test_only_connect_holds_the_secrets_of_the_connector(servers: Settings) -> None:
    holders = {name for name, pid in pids(servers).items() if "CDC_PASSWORD" in psutil.Process(pid).environ()}
    assert holders == {"connect"}
    for process in processes_of(servers.home):
        assert servers.secret("postgres_password") not in " ".join(process.cmdline())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_killed_server_comes_back_by_itself(servers: Settings, name: str) -> None:
    before = pids(servers)
    psutil.Process(before[name]).kill()
    wait_for(lambda: pids(servers)[name] not in (before[name], None), f"a new process of {name}")
    wait_for(lambda: answers(servers), "every server answers")
    assert {n: p for n, p in pids(servers).items() if n != name} == {n: p for n, p in before.items() if n != name}


def test_a_start_brings_back_what_is_missing_and_nothing_else(servers: Settings) -> None:
    before = pids(servers)
    Supervisor(servers).stop("mongodb")
    assert stack.start(servers).started == ("mongodb",)
    after = pids(servers)
    assert after.pop("mongodb") != before.pop("mongodb")
    assert after == before


@pytest.mark.usefixtures("no_network")
def test_a_stack_beside_another_survives_its_supervisor_and_leaves_nothing(
    servers: Settings, new_settings: Callable[..., Settings]
) -> None:
    # The other one lies in a folder closed to others, with a path too long for a socket.
    settings = new_settings("x" * LONGEST_SOCKET_PATH)
    settings.home.parent.chmod(0o700)
    assert not socket_path(settings.home).is_relative_to(settings.home)
    settings = stack.start(settings).settings
    assert cluster_id(settings) != cluster_id(servers)
    with psycopg.connect(settings.postgres_conninfo, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.kept AS SELECT 1 AS one")

    orphans = _kill_supervisor(settings)
    moved = _on_other_ports(settings, new_settings())
    assert set(stack.start(moved).started) == NAMES
    assert wait_for_end(orphans, 0) == []
    with psycopg.connect(moved.postgres_conninfo) as connection:
        assert connection.execute("SELECT one FROM public.kept").fetchone() == (1,)

    processes = processes_of(moved.home)
    assert len(processes) > len(NAMES)
    stack.stop(moved)
    assert processes_of(moved.home) == []
    assert not socket_path(moved.home).parent.exists()
    assert wait_for_end(processes, 0) == []
    for server in stack.SERVERS:
        assert [port for port in server.ports(moved).values() if not is_free(port)] == []
    stack.stop(moved)
    assert answers(servers)


def _kill_supervisor(settings: Settings) -> list[psutil.Process]:
    """What it leaves: servers, a socket, and a pid file whose number soon belongs to another process."""
    pid_file = run_folder(settings) / "supervisord.pid"
    supervisor = psutil.Process(int(pid_file.read_text()))
    supervisor.kill()
    assert wait_for_end([supervisor], 10) == []
    pid_file.write_text(f"{os.getpid()}\n")
    orphans = processes_of(settings.home)
    assert orphans
    assert socket_path(settings.home).exists()
    return orphans


def _on_other_ports(settings: Settings, others: Settings) -> Settings:
    ports = {name: getattr(others, name) for name in Settings.model_fields if name.endswith("_port")}
    secrets = {name: settings.secret(name) for name in credentials.NAMES}
    return Settings.model_validate({"stripe_platform_home": settings.home, **ports, **secrets})


def test_a_taken_port_is_named_with_its_setting_and_its_holder(stopped: Settings) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", stopped.connect_port))
        holder.listen()
        with pytest.raises(PortTaken) as error:
            stack.start(stopped)
    for part in (str(stopped.connect_port), "Kafka Connect", "CONNECT_PORT", f"pid {os.getpid()}"):
        assert part in str(error.value)
    assert processes_of(stopped.home) == []


def test_a_server_that_cannot_start_is_named_with_its_last_error_and_its_log(servers: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "mongod"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "error: the disk speaks Latin"\nexit 1\n')
    broken.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(ServerFailed, match="MongoDB failed to start: error: the disk speaks Latin") as error:
            stack.start(servers)
    assert str(servers.home / "logs" / "mongodb.log") in str(error.value)
    assert stack.start(servers).started == ("mongodb",)


def test_other_secrets_than_those_of_the_data_are_named_as_the_cause(servers: Settings) -> None:
    kept = servers.secrets / "postgres_password"
    other = Settings.model_validate({**servers.model_dump(), "postgres_password": "another"})
    with pytest.raises(ServerFailed, match="made with another password"):
        stack.start(other)
    assert kept.read_text() == servers.secret("postgres_password")
    stack.start(servers)
