"""A new beginning for a connector that can never go on from where it stopped."""

import time
from collections.abc import Callable
from datetime import timedelta

from stripe_platform.cdc.connect import ConnectClient
from stripe_platform.cdc.connector import (
    CONNECTOR,
    NOT_REGISTERED,
    ConnectorNotRunning,
    connector_state,
    is_streaming,
    register,
)
from stripe_platform.cdc.offsets import notices_written
from stripe_platform.cdc.slot import drop_slot, slot_state
from stripe_platform.cdc.snapshot_notices import has_started_since
from stripe_platform.settings import Settings

STOPPED = "STOPPED"
# As a cut: a new slot waits for every transaction that is open.
BEGINS_WITHIN = timedelta(minutes=30)


def begin_anew(settings: Settings, *, limit: timedelta = BEGINS_WITHIN) -> None:
    """Have the connector forget where it stopped, drop its slot, and start it: the stream begins with what comes now.

    The connector tells so itself, and from then on every table has a hole. Ended at any point, it is called again.
    Errors of `register`; `ConnectorNotRunning` when it has not begun within `limit`.
    """
    started = time.monotonic()
    client = ConnectClient(settings.connect_url)
    client.stop(CONNECTOR)
    _wait(settings, started, limit, lambda: _is_stopped(settings))
    client.delete_offsets(CONNECTOR)
    drop_slot(settings)
    go_on(settings, limit=limit)


def go_on(settings: Settings, *, limit: timedelta = BEGINS_WITHIN) -> None:
    """Have the connector stream; if it has to make its slot, it has told how it started. Errors as `begin_anew`."""
    started = time.monotonic()
    has_slot, before = slot_state(settings) is not None, notices_written(settings)
    register(settings)
    _wait(settings, started, limit, lambda: is_streaming(settings))
    _wait(settings, started, limit, lambda: has_slot or has_started_since(settings, before))


def _is_stopped(settings: Settings) -> bool:
    state = connector_state(settings)
    return state.connector == NOT_REGISTERED or (state.connector == STOPPED and not state.tasks)


def _wait(settings: Settings, started: float, limit: timedelta, is_so: Callable[[], bool]) -> None:
    while not is_so():
        waited = timedelta(seconds=time.monotonic() - started)
        if waited > limit:
            raise ConnectorNotRunning(connector_state(settings), slot_state(settings), waited)
        time.sleep(0.2)
