"""Telling who types `dagster dev` that the stack's own Dagster is already up."""

import os

import httpx
from dagster import get_dagster_logger

from stripe_platform.local.survivors import MARK
from stripe_platform.settings import Settings


def daemon_runs(settings: Settings) -> bool:
    """Whether a Dagster answers on this stack's port."""
    try:
        with httpx.Client(timeout=1, trust_env=False) as client:
            return client.get(f"http://127.0.0.1:{settings.dagster_port}/server_info").is_success
    except httpx.HTTPError:
        return False


def warn_if_a_daemon_runs(settings: Settings) -> None:
    """Log a warning when this is a second `dagster dev` beside the one that `make up` started."""
    if os.environ.get("DAGSTER_IS_DEV_CLI") != "1" or MARK in os.environ:
        return
    if daemon_runs(settings):
        get_dagster_logger().warning(
            "a Dagster daemon of this stack already runs (http://127.0.0.1:%d): two daemons evaluate every sensor "
            "twice; open that page instead, or stop it with `make down`",
            settings.dagster_port,
        )
