import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from stripe_platform.doctor import examine as module
from stripe_platform.doctor.examine import MACHINE, SERVERS, STREAM, Diagnosis, examine, print_diagnosis, run_probes
from stripe_platform.doctor.finding import Finding, Probe, State, ok, problem, warning
from stripe_platform.environment import Environment
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.supervisor import socket_path
from stripe_platform.settings import PROJECT_ROOT, Settings

CANARIES = {"postgres_password": "canary-a1", "cdc_password": "canary-b2", "toast_placeholder": "canary-c3"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"stripe_platform_home": tmp_path / "home", **CANARIES})


def fails(settings: Settings) -> Finding:
    raise StripePlatformError("named: mend it")


def breaks(settings: Settings) -> Finding:
    raise ValueError("a row value")


def test_a_probe_that_fails_is_a_finding_and_the_others_go_on(settings: Settings) -> None:
    probes = [
        Probe("one", fails, "remedy one"),
        Probe("two", breaks, "remedy two"),
        Probe("three", lambda settings: [ok("a", "x"), ok("b", "y")], ""),
    ]
    one, two, a, b = run_probes(settings, probes)
    assert (one.state, one.found, one.remedy) == (State.PROBLEM, "named: mend it", "remedy one")
    assert (two.state, two.remedy) == (State.PROBLEM, "remedy two")
    assert "ValueError" in two.found
    assert "row value" not in two.model_dump_json()
    assert [a.looked_at, b.looked_at] == ["a", "b"]


def test_a_probe_that_hangs_is_given_up_and_the_others_have_answered(settings: Settings) -> None:
    released = threading.Event()

    def hangs(settings: Settings) -> Finding:
        released.wait(30)
        return ok("hangs", "")

    started = time.monotonic()
    try:
        late, quick = run_probes(settings, [Probe("slow", hangs, "wait"), Probe("q", lambda s: ok("q", ""), "")], 0.3)
    finally:
        released.set()
    assert (late.looked_at, late.state, late.remedy) == ("slow", State.PROBLEM, "wait")
    assert quick == ok("q", "")
    assert time.monotonic() - started < 10


def test_probes_run_at_once(settings: Settings) -> None:
    meeting = threading.Barrier(5, timeout=20)

    def meets(settings: Settings) -> Finding:
        meeting.wait()
        return ok("met", "")

    assert {f.state for f in run_probes(settings, [Probe(str(n), meets, "") for n in range(5)])} == {State.OK}


def test_no_secret_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    every = " ".join(CANARIES.values())

    def tells(settings: Settings) -> Finding:
        return problem("secret", f"login {every}", f"use {every}")

    def raises(settings: Settings) -> Finding:
        raise StripePlatformError(f"refused {every}")

    monkeypatch.setattr(module, "MACHINE", (Probe("a", tells, ""), Probe("b", raises, "")))
    diagnosis = examine(settings)
    out = io.StringIO()
    print_diagnosis(diagnosis, Console(file=out))
    for text in (diagnosis.model_dump_json(), out.getvalue()):
        assert "login *** *** ***" in text
        assert "canary" not in text


def test_a_stack_that_never_ran_is_one_warning_and_no_problem(settings: Settings) -> None:
    # The ports are those of nobody, lest a stack beside the tests is found.
    findings = {f.looked_at: f for f in examine(settings).findings if not f.looked_at.startswith("port ")}
    assert findings["supervisor"].state is State.WARNING
    assert findings["supervisor"].remedy == "`make up`"
    assert findings["platform"].state is State.OK
    assert findings["stack's folder"].state is State.OK
    assert not {probe.looks_at for probe in (*SERVERS, *STREAM)} & set(findings)
    assert not settings.home.exists()


def test_elsewhere_than_on_this_machine_only_the_stream_is_looked_at(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"stripe_platform_env": Environment.CLOUD})
    assert module._probes(elsewhere) == STREAM


def test_looks_have_names_of_their_own() -> None:
    names = [probe.looks_at for probe in (*MACHINE, *SERVERS, *STREAM)]
    assert len(set(names)) == len(names)


def test_only_a_problem_makes_the_diagnosis_bad() -> None:
    fine = [ok("a", "x"), warning("b", "y", "do")]
    assert not Diagnosis(findings=fine).has_problem
    assert Diagnosis(findings=[*fine, problem("c", "z", "do")]).has_problem


def test_findings_are_printed_with_their_remedies_unbroken_and_markup_as_it_is() -> None:
    out = io.StringIO()
    remedy = "`rm -r " + "/long" * 40 + "`"
    print_diagnosis(Diagnosis(findings=[ok("a", "[red]x"), problem("b", "y", remedy)]), Console(file=out, width=60))
    assert remedy in out.getvalue()
    assert "[red]x" in out.getvalue()
    assert "1 ok, 0 warning, 1 problem" in out.getvalue()
    assert json.loads(Diagnosis(findings=[problem("b", "y", remedy)]).model_dump_json())["findings"][0] == {
        "looked_at": "b",
        "state": "problem",
        "found": "y",
        "remedy": remedy,
    }


ALL_HUNG = """
import json, sys, time
from pathlib import Path
from stripe_platform.doctor import examine, servers
from stripe_platform.local.stack import EVERY_SERVER, ServerState
from stripe_platform.settings import load_settings

states = tuple(ServerState(s.name, s.title, "RUNNING", 1, {}, Path("/x")) for s in EVERY_SERVER)
examine.life = lambda settings: servers.Life.UP
examine.server_states = servers.server_states = lambda settings: states
started = time.monotonic()
diagnosis = examine.examine(load_settings())
print(json.dumps([time.monotonic() - started, {f.looked_at: f.state for f in diagnosis.findings}]))
"""


def test_with_every_server_hung_it_ends_in_time_names_them_all_and_keeps_no_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        servers = ("POSTGRES", "KAFKA", "CONNECT", "MONGODB", "DAGSTER", "DASHBOARD", "METRICS")
        hung = {f"{name}_PORT": port for name in servers}
        secrets = {name.upper(): value for name, value in CANARIES.items()}
        asked = subprocess.run(
            [sys.executable, "-c", ALL_HUNG],
            env=os.environ | hung | secrets | {"STRIPE_PLATFORM_HOME": str(tmp_path / "home")},
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
    seconds, states = json.loads(asked.stdout)
    assert seconds < 15
    servers_and_stream = {probe.looks_at for probe in (*SERVERS, *STREAM)}
    assert {name for name, state in states.items() if state == "problem"} >= servers_and_stream


def test_a_supervisor_that_hangs_is_told_in_time(settings: Settings) -> None:
    path = socket_path(settings.home)
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        started = time.monotonic()
        found = {finding.looked_at: finding for finding in examine(settings).findings}
        assert time.monotonic() - started < 15
    assert found["supervisor"].state is State.PROBLEM
    assert "no answer" in found["supervisor"].found
    assert found["platform"].state is State.OK
