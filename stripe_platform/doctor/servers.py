"""Looks at the servers: what the supervisor says, whether they answer, which versions run, whether clocks agree."""

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib.metadata import version as installed_version
from typing import Any

import httpx
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from stripe_platform.doctor.finding import Finding, ok, problem, warning
from stripe_platform.doctor.machine import pinned_versions
from stripe_platform.local.connect import CONNECT
from stripe_platform.local.dagster import DAGSTER
from stripe_platform.local.dashboard import DASHBOARD
from stripe_platform.local.kafka import KAFKA
from stripe_platform.local.mongodb import MONGODB
from stripe_platform.local.postgres import POSTGRES
from stripe_platform.local.server import Server
from stripe_platform.local.stack import BESIDE, ServerState, server_states
from stripe_platform.local.stream import STREAM
from stripe_platform.local.supervisor import Supervisor
from stripe_platform.local.survivors import processes_of
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import Migration, MigrationError, pending, read_migrations
from stripe_platform.settings import Settings

ANSWER_LIMIT_S = 4
CLOCK_LIMIT_S = 2.0
RUNNING = "RUNNING"
# The first seconds after its process was made.
STARTING = "STARTING"
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } } }"


class Life(StrEnum):
    """Whether a stack runs: `DEAD` has processes left without their supervisor."""

    UP = "up"
    DOWN = "down"
    DEAD = "dead"


def life(settings: Settings) -> Life:
    """The supervisor is asked, then the processes; `ServerTimeout` when the supervisor hangs."""
    if Supervisor(settings).is_running():
        return Life.UP
    return Life.DEAD if processes_of(settings.home) else Life.DOWN


def judge_life(state: Life, left: int) -> Finding:
    """A stack that nobody started is no problem; `left` processes without a supervisor are one."""
    if state is Life.UP:
        return ok("supervisor", "runs")
    if state is Life.DOWN:
        return warning("supervisor", "the stack is not running, so nothing that runs was looked at", "`make up`")
    found = f"the supervisor is gone, {left} of its processes are left, which nobody watches"
    return problem("supervisor", found, "`stripe-platform down` ends them; `make up` ends them and starts anew")


def look_at_life(settings: Settings) -> Finding:
    """The supervisor, and processes of a dead stack."""
    return judge_life(life(settings), len(processes_of(settings.home)))


def look_at_server(server: Server, settings: Settings) -> Finding:
    """One server: its state, its answer, its version."""
    state = next(state for state in server_states(settings) if state.name == server.name)
    if state.state not in (RUNNING, STARTING):
        return judge_server(state, None, {}, {})
    asked = NOT_READY.get(server.name, server.why_not_ready)(settings)
    versions = VERSIONS[server.name](settings) if asked is None else {}
    return judge_server(state, asked, versions, {**pinned_versions(), "dagster": installed_version("dagster")})


def judge_server(
    state: ServerState, not_ready: str | None, versions: Mapping[str, str], expected: Mapping[str, str]
) -> Finding:
    """`versions` by name as the server tells them, `expected` those that are installed."""
    read_log = f"`stripe-platform logs {state.name}` tells why; mend the cause, then `stripe-platform up`"
    if state.state == "STOPPED" and state.name in {server.name for server in BESIDE}:
        return warning(state.title, "is not started", "`stripe-platform up` starts it")
    if state.state not in (RUNNING, STARTING):
        return problem(state.title, f"does not run ({state.state})", read_log)
    if not_ready is not None and state.state == STARTING:
        return warning(state.title, f"is starting: {not_ready}", "wait a moment")
    if not_ready is not None:
        return problem(state.title, f"runs as process {state.pid}, but {not_ready}", read_log)
    found = f"runs as process {state.pid}" + "".join(f", {name} {version}" for name, version in versions.items())
    for name, version in versions.items():
        # PostgreSQL leaves out the zero that its package's version ends with.
        if name in expected and f"{expected[name]}.".startswith(f"{version}.") is False:
            found += f"; installed is {name} {expected[name]}"
            return warning(state.title, found, "`stripe-platform down`, then `stripe-platform up`")
    return ok(state.title, found)


def _postgres_version(settings: Settings) -> Mapping[str, str]:
    with connect(settings, autocommit=True) as postgres:
        (version,) = postgres.execute("SHOW server_version").fetchone() or ("",)
    return {POSTGRES.name: version.split()[0]}


def _kafka_version(settings: Settings) -> Mapping[str, str]:
    # Its protocol does not tell: this is what a start takes.
    return {KAFKA.name: pinned_versions()[KAFKA.name]}


def _connect_version(settings: Settings) -> Mapping[str, str]:
    plugins = {plugin["type"]: plugin["version"] for plugin in _get(f"{settings.connect_url}/connector-plugins")}
    return {CONNECT.name: _get(f"{settings.connect_url}/")["version"], "debezium": plugins.get("source", "missing")}


def _mongodb_version(settings: Settings) -> Mapping[str, str]:
    with _mongodb(settings) as client:
        return {MONGODB.name: client.admin.command("buildInfo")["version"]}


def _dagster_version(settings: Settings) -> Mapping[str, str]:
    return {DAGSTER.name: _get(f"{_dagster_url(settings)}/server_info")["dagster_version"]}


VERSIONS: Mapping[str, Callable[[Settings], Mapping[str, str]]] = {
    POSTGRES.name: _postgres_version,
    KAFKA.name: _kafka_version,
    CONNECT.name: _connect_version,
    MONGODB.name: _mongodb_version,
    DAGSTER.name: _dagster_version,
    # They are this project itself.
    STREAM.name: lambda _: {},
    DASHBOARD.name: lambda _: {},
}


def _mongodb_not_ready(settings: Settings) -> str | None:
    # A start's own question would initialise the replica set; an examination changes nothing.
    try:
        with _mongodb(settings) as client:
            return None if client.admin.command("hello")["isWritablePrimary"] else "it is not primary"
    except PyMongoError:
        return "it does not answer"


NOT_READY: Mapping[str, Callable[[Settings], str | None]] = {MONGODB.name: _mongodb_not_ready}


def _mongodb(settings: Settings) -> MongoClient[dict[str, Any]]:
    return MongoClient(
        settings.mongodb_host, settings.mongodb_port, directConnection=True, timeoutMS=ANSWER_LIMIT_S * 1000
    )


def look_at_daemons(settings: Settings) -> Finding:
    """The heartbeats of Dagster's daemons, as its webserver tells them."""
    answer = httpx.post(
        f"{_dagster_url(settings)}/graphql", json={"query": DAEMONS}, timeout=ANSWER_LIMIT_S, trust_env=False
    )
    health = answer.raise_for_status().json()["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    required = [daemon for daemon in health if daemon["required"]]
    late = {d["daemonType"]: d["lastHeartbeatTime"] for d in required if not d["healthy"]}
    return judge_daemons(len(required), late, time.time())


def judge_daemons(required: int, late: Mapping[str, float | None], now: float) -> Finding:
    """`late`: the daemons that ought to have beaten by now, with the time of their last beat."""
    if not late:
        return ok("Dagster's daemon", f"{required} of {required} parts alive")
    if any(beat is None for beat in late.values()):
        return warning("Dagster's daemon", f"{', '.join(late)}: no heartbeat yet", "wait a moment")
    ages = ", ".join(f"{name} ({now - beat:.0f} s ago)" for name, beat in late.items() if beat is not None)
    remedy = "`stripe-platform logs dagster` tells why; `stripe-platform down`, then `stripe-platform up`"
    return problem("Dagster's daemon", f"no sensor and no schedule runs, last heartbeats: {ages}", remedy)


def look_at_schema(settings: Settings) -> Finding:
    """Whether every migration of this version is applied."""
    with connect(settings, autocommit=True) as postgres:
        if postgres.execute("SELECT to_regclass('public.schema_migrations')").fetchone() == (None,):
            return judge_schema(read_migrations(), None)
        rows = postgres.execute("SELECT name, checksum FROM public.schema_migrations").fetchall()
    return judge_schema(read_migrations(), dict(rows))


def judge_schema(migrations: tuple[Migration, ...], applied: dict[str, str] | None) -> Finding:
    """`applied`: checksums by name; None when no migration ever was."""
    remedy = "`stripe-platform up` migrates"
    if applied is None:
        return problem("schema", "not migrated", remedy)
    try:
        missing = pending(migrations, applied)
    except MigrationError as error:
        return problem("schema", str(error), "check out the version of the code that the database was migrated with")
    if missing:
        return problem("schema", f"not applied: {', '.join(migration.name for migration in missing)}", remedy)
    return ok("schema", f"{len(applied)} migrations applied")


def look_at_clock(settings: Settings) -> Finding:
    """PostgreSQL's clock against ours, halfway between question and answer."""
    with connect(settings, autocommit=True) as postgres:
        asked = time.time()
        (theirs,) = postgres.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone() or (0.0,)
        return judge_clock(theirs - (asked + time.time()) / 2)


def judge_clock(ahead: float) -> Finding:
    """`ahead`: seconds that PostgreSQL's clock is ahead of ours."""
    found = f"PostgreSQL's differs from ours by {abs(ahead):.1f} s"
    if abs(ahead) <= CLOCK_LIMIT_S:
        return ok("clock", found)
    return problem("clock", found, "have both machines' clocks set by NTP: `timedatectl set-ntp true`")


def _dagster_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.dagster_port}"


def _get(address: str) -> Any:
    return httpx.get(address, timeout=ANSWER_LIMIT_S, trust_env=False).raise_for_status().json()
