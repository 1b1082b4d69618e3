"""Whether the ports of a server are free, and who holds them if not."""

import socket

import psutil

from stripe_platform.local.errors import PortTaken
from stripe_platform.local.server import Server
from stripe_platform.settings import Settings

HOST = "127.0.0.1"


def check_ports(server: Server, settings: Settings) -> None:
    """Raise `PortTaken`, which names port, setting and holder, unless the server can have all its ports."""
    for setting, port in server.ports(settings).items():
        if not is_free(port):
            holder = holder_of(port)
            raise PortTaken(server.title, port, setting, describe(holder) if holder else None)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of this machine now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last one that still linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def holder_of(port: int) -> psutil.Process | None:
    """The process that listens on the port; None when nobody does, or when it may not be seen."""
    try:
        listening = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in listening:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None


def describe(holder: psutil.Process) -> str | None:
    """Name and pid, for a person; None when the process has ended."""
    try:
        return f"{holder.name()} (pid {holder.pid})"
    except psutil.NoSuchProcess:
        return None
