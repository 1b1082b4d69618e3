"""The dashboard, as one supervised program beside the servers."""

import sys

from stripe_platform.local.environment import environment
from stripe_platform.local.server import Program, Server, run_folder, why_no_answer
from stripe_platform.settings import PROJECT_ROOT, Settings

HOST = "127.0.0.1"
PAGE = PROJECT_ROOT / "stripe_platform" / "dashboard" / "page.py"

# Nothing is sent home, nothing watched for changes, and no stack trace shown.
OPTIONS = {
    "server.address": HOST,
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "viewer",
    "theme.base": "light",
}
# No other name leads a browser here: a page elsewhere must not read payments by way of its visitor.
ALLOWED_HOSTS = (HOST, "localhost")


def _program(settings: Settings) -> Program:
    options = OPTIONS | {"server.port": str(settings.dashboard_port)}
    return Program(
        name="dashboard",
        command=(
            *(sys.executable, "-m", "streamlit", "run", str(PAGE)),
            *(f"--{name}={value}" for name, value in options.items()),
            *(f"--server.allowedHosts={host}" for host in ALLOWED_HOSTS),
        ),
        environment=environment(settings),
        # Where no configuration of Streamlit's lies that could say otherwise.
        folder=run_folder(settings),
    )


def _why_not_ready(settings: Settings) -> str | None:
    return why_no_answer(f"http://{HOST}:{settings.dashboard_port}/_stcore/health")


DASHBOARD = Server(
    name="dashboard",
    title="Dashboard",
    ports=lambda settings: {"DASHBOARD_PORT": settings.dashboard_port},
    program=_program,
    why_not_ready=_why_not_ready,
)
