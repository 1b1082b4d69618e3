"""The local stack: PostgreSQL, Kafka, Connect and MongoDB, started in order, watched, stopped in reverse."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from stripe_platform.local.artifacts import fill_cache, is_cache_complete
from stripe_platform.local.connect import CONNECT
from stripe_platform.local.credentials import with_secrets
from stripe_platform.local.dagster import DAGSTER
from stripe_platform.local.dashboard import DASHBOARD
from stripe_platform.local.disk import check_free_space
from stripe_platform.local.errors import (
    ForeignHome,
    HomeTaken,
    NotThisMachine,
    ResetUnfinished,
    ServerFailed,
    ServerTimeout,
    StackBusy,
    UnreachableHome,
)
from stripe_platform.local.home import somebody_s
from stripe_platform.local.kafka import KAFKA
from stripe_platform.local.mongodb import MONGODB
from stripe_platform.local.ports import check_ports
from stripe_platform.local.postgres import POSTGRES
from stripe_platform.local.server import READY_TIMEOUT_S, Server, log_file, run_folder
from stripe_platform.local.stream import STREAM
from stripe_platform.local.supervisor import Process, Supervisor, remove_socket
from stripe_platform.local.survivors import end_processes_of
from stripe_platform.settings import Settings, without_secrets

# Each stage is started at once, when the stage before it is ready.
STAGES = ((POSTGRES, KAFKA, MONGODB), (CONNECT,))
SERVERS = tuple(server for stage in STAGES for server in stage)
# What works with the servers is started when there is something to work on.
BESIDE = (STREAM, DAGSTER, DASHBOARD)
EVERY_SERVER = (*SERVERS, *BESIDE)
# What holds payments, secrets or errors that name them; PostgreSQL's user must get through the home itself.
PRIVATE_FOLDERS = ("run", "logs", "lake", "warehouse", "dagster", "dbt", "cuts")
LOOPBACK = ("127.0.0.1", "localhost")
LOCK_TIMEOUT_S = 300
POLL_S = 0.1
# In the run folder for as long as a reset removes data.
RESET_MARK = "reset.unfinished"
LOG_TAIL_BYTES = 16 * 1024
QUOTE_CHARACTERS = 300

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ServerState:
    """One server as it is now; `state` is the supervisor's word, `STOPPED` where there is no supervisor."""

    name: str
    title: str
    state: str
    pid: int | None
    ports: dict[str, int]
    log: Path


@dataclass(frozen=True)
class StackReport:
    """What a start found or made: `settings` with the generated secrets, `started` by name."""

    settings: Settings
    servers: tuple[ServerState, ...]
    started: tuple[str, ...]


def start(settings: Settings, *, progress: Progress | None = None) -> StackReport:
    """Bring up what is not running; returns when every server answers, changes nothing when all do.

    Raises an error of `stripe_platform.local.errors` that names the cause and the remedy.
    """
    tell = progress or _tell_nobody
    _check_hosts(settings)
    _make_home(settings)
    with only_one(settings):
        _check_reset(settings)
        settings = with_secrets(settings)
        if not is_cache_complete():
            tell("fetching the servers (about 75 MB, only this once)")
        fill_cache()
        supervisor = _supervise(settings)
        started: list[str] = []
        for stage in STAGES:
            with ThreadPoolExecutor(len(stage)) as pool:
                fresh = pool.map(lambda server: _bring_up(server, settings, supervisor, tell), stage)
                started += [server.name for server, is_fresh in zip(stage, fresh, strict=True) if is_fresh]
        return StackReport(settings, _states(settings, supervisor.processes()), tuple(started))


def start_beside(settings: Settings, server: Server, *, progress: Progress | None = None) -> ServerState:
    """Bring up one of `BESIDE` beside the running servers; returns when it answers."""
    _make_home(settings)
    with only_one(settings):
        _check_reset(settings)
        settings = with_secrets(settings)
        supervisor = _supervise(settings)
        _bring_up(server, settings, supervisor, progress or _tell_nobody)
        return next(s for s in _states(settings, supervisor.processes()) if s.name == server.name)


def stop(settings: Settings, *, progress: Progress | None = None) -> None:
    """Stop everything in reverse order; returns when all processes are gone. Harmless when nothing runs."""
    tell = progress or _tell_nobody
    if not lock_file(settings).is_file():
        # Not a stack's, or deleted under running servers; the lock must not make it look like one.
        end_processes_of(settings.home)
        return
    with only_one(settings):
        supervisor = Supervisor(settings)
        if supervisor.is_running():
            for stage in (BESIDE, *reversed(STAGES)):
                names = [server.name for server in stage]
                tell(f"stopping {', '.join(server.title for server in stage)}")
                with ThreadPoolExecutor(len(names)) as pool:
                    list(pool.map(supervisor.stop, names))
            supervisor.shutdown()
        end_processes_of(settings.home)
        remove_socket(settings.home)


def server_states(settings: Settings) -> tuple[ServerState, ...]:
    """Every server, and what works beside them, as the supervisor sees it; asks none, raises nothing when none runs."""
    supervisor = Supervisor(settings)
    return _states(settings, supervisor.processes() if supervisor.is_running() else {})


def _tell_nobody(message: str) -> None:
    return None


def _check_hosts(settings: Settings) -> None:
    for name in ("postgres_host", "kafka_host", "connect_host", "mongodb_host"):
        if getattr(settings, name) not in LOOPBACK:
            raise NotThisMachine(name, getattr(settings, name))


def _check_reset(settings: Settings) -> None:
    if (run_folder(settings) / RESET_MARK).exists():
        raise ResetUnfinished(settings.home)


def _make_home(settings: Settings) -> None:
    try:
        settings.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        owner = settings.home.stat().st_uid
    except PermissionError:
        raise UnreachableHome(settings.home) from None
    _check_taken(settings)
    for folder in (settings.home / name for name in PRIVATE_FOLDERS):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            owner = folder.stat().st_uid
        except PermissionError:
            raise ForeignHome(settings.home, owner) from None
        if owner != os.geteuid():
            raise ForeignHome(settings.home, owner)
        folder.chmod(0o700)
    check_free_space(settings)


def _check_taken(settings: Settings) -> None:
    """Once the lock is there nobody can tell any more what was there before."""
    try:
        names = () if lock_file(settings).exists() else somebody_s(settings.home)
    except PermissionError:
        # Another user's: the next look at the folders says whose.
        return
    if names:
        raise HomeTaken(settings.home, names)


def lock_file(settings: Settings) -> Path:
    """The file that whoever starts, stops or resets the stack holds locked; every stack's home has it."""
    return run_folder(settings) / "stack.lock"


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Keep other commands from starting or stopping the same stack; `StackBusy` when one has been at it too long."""
    lock = FileLock(lock_file(settings), timeout=LOCK_TIMEOUT_S)
    try:
        with lock:
            yield
    except Timeout:
        raise StackBusy(settings.home, LOCK_TIMEOUT_S) from None


def _supervise(settings: Settings) -> Supervisor:
    supervisor = Supervisor(settings)
    programs = [server.program(settings) for server in EVERY_SERVER]
    if supervisor.is_running():
        supervisor.update(programs)
        return supervisor
    end_processes_of(settings.home)
    for server in SERVERS:
        check_ports(server, settings)
    supervisor.launch(programs)
    return supervisor


def _bring_up(server: Server, settings: Settings, supervisor: Supervisor, tell: Progress) -> bool:
    """Have one server running and ready; whether it had to be started."""
    log = log_file(settings, server.name)
    seen = log.stat().st_size if log.exists() else 0
    fresh = not supervisor.processes()[server.name].is_up
    if fresh:
        # It may be waiting for its next try.
        supervisor.stop(server.name)
        check_ports(server, settings)
        tell(f"starting {server.title}")
        server.prepare(settings)
        supervisor.start(server.name)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (problem := server.why_not_ready(settings)) is not None:
        process = supervisor.processes()[server.name]
        if fresh and not process.is_up:
            supervisor.stop(server.name)
            raise ServerFailed(server.title, _last_error(log, seen, settings) or process.trouble, log)
        if time.monotonic() > deadline:
            raise ServerTimeout(server.title, f"did not get ready ({problem})", READY_TIMEOUT_S, log)
        time.sleep(POLL_S)
    server.finish(settings)
    tell(f"{server.title} is ready")
    return fresh


def _last_error(log: Path, seen: int, settings: Settings) -> str:
    """The last line since `seen` that speaks of an error, without secrets; empty when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - LOG_TAIL_BYTES, min(seen, size)))
        lines = file.read().decode(errors="replace").splitlines()
    words = ("error", "fatal", "exception", "denied", "failed", "cannot")
    telling = [line for line in lines if any(word in line.lower() for word in words)] or lines or [""]
    return without_secrets(settings, telling[-1].strip())[:QUOTE_CHARACTERS]


def _states(settings: Settings, processes: Mapping[str, Process]) -> tuple[ServerState, ...]:
    def state(server: Server) -> ServerState:
        process = processes.get(server.name)
        return ServerState(
            name=server.name,
            title=server.title,
            state=process.state if process else "STOPPED",
            pid=process.pid if process else None,
            ports=dict(server.ports(settings)),
            log=log_file(settings, server.name),
        )

    return tuple(state(server) for server in EVERY_SERVER)
