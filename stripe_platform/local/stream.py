"""The continuous mode, as one supervised program beside the servers."""

import sys

import httpx

from stripe_platform.local.credentials import NAMES as SECRET_NAMES
from stripe_platform.local.environment import environment
from stripe_platform.local.server import Program, Server
from stripe_platform.settings import Settings

HOST = "127.0.0.1"
PROBE_TIMEOUT_S = 5
SINKS_UP = "stripe_platform_sink_up"


def _program(settings: Settings) -> Program:
    return Program(
        name="stream",
        command=(sys.executable, "-m", "stripe_platform.cli", "stream"),
        environment={
            **environment(settings),
            **{name.upper(): settings.secret(name) for name in SECRET_NAMES},
        },
        # Its sinks end the batch that they are at; by force after 20 s (`stripe_platform.stream.process`).
        stop_limit=30,
    )


def _why_not_ready(settings: Settings) -> str | None:
    try:
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            metrics = client.get(f"http://{HOST}:{settings.metrics_port}/metrics").raise_for_status().text
    except httpx.HTTPError:
        return "it does not answer yet"
    states = [line.rsplit(" ", 1)[1] for line in metrics.splitlines() if line.startswith(f"{SINKS_UP}{{")]
    return None if states and all(state == "1.0" for state in states) else "its sinks do not run yet"


STREAM = Server(
    name="stream",
    title="Stream",
    ports=lambda settings: {"METRICS_PORT": settings.metrics_port},
    program=_program,
    why_not_ready=_why_not_ready,
)
