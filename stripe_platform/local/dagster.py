"""Dagster's webserver and daemon, as one supervised program beside the servers."""

import sys

from stripe_platform.local.credentials import NAMES as SECRET_NAMES
from stripe_platform.local.environment import environment
from stripe_platform.local.server import Program, Server, why_no_answer
from stripe_platform.settings import PROJECT_ROOT, Settings

HOST = "127.0.0.1"


def _prepare(settings: Settings) -> None:
    settings.dagster_home.mkdir(parents=True, exist_ok=True)


def _program(settings: Settings) -> Program:
    return Program(
        name="dagster",
        command=(
            *(sys.executable, "-m", "dagster", "dev"),
            *("-w", str(PROJECT_ROOT / "workspace.yaml"), "-h", HOST, "-p", str(settings.dagster_port)),
        ),
        environment={
            **environment(settings),
            **{name.upper(): settings.secret(name) for name in SECRET_NAMES},
            "DAGSTER_HOME": str(settings.dagster_home),
        },
        # Not the project's folder: there Dagster would read .env itself, and let it beat the environment.
        folder=settings.dagster_home,
        # It stays up after a SIGTERM.
        stop_signal="INT",
        stop_limit=30,
    )


def _why_not_ready(settings: Settings) -> str | None:
    return why_no_answer(f"http://{HOST}:{settings.dagster_port}/server_info")


DAGSTER = Server(
    name="dagster",
    title="Dagster",
    ports=lambda settings: {"DAGSTER_PORT": settings.dagster_port},
    prepare=_prepare,
    program=_program,
    why_not_ready=_why_not_ready,
)
