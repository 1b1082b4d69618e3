"""The servers' logs: their last lines and those still to come, over rotations, without secrets."""

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

from rich.console import Console

from stripe_platform.local.errors import UnknownServer
from stripe_platform.local.server import log_file
from stripe_platform.local.stack import EVERY_SERVER
from stripe_platform.local.supervisor import LOG_BACKUPS
from stripe_platform.settings import Settings, without_secrets

NAMES = (*(server.name for server in EVERY_SERVER), "supervisord")
FOLLOW_POLL_S = 0.2
BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Line:
    """One line of a server's log, without its line end."""

    server: str
    text: str


def servers_named(name: str | None) -> tuple[str, ...]:
    """The servers whose logs are meant: the one named, or all; `UnknownServer` names those there are."""
    if name is None:
        return NAMES
    if name not in NAMES:
        raise UnknownServer(name, NAMES)
    return (name,)


def show_logs(
    settings: Settings, server: str | None, *, lines: int, following: bool, out: TextIO, told: Console
) -> None:
    """Write the last `lines` of the logs meant to `out`, each with its server's name where there are several.

    What is not there yet is `told`; with `following` it goes on for ever. Raises as `servers_named`.
    """
    servers = servers_named(server)
    for name in missing_logs(settings, servers):
        told.print(f"{name} has no log yet: it has not run in {settings.home}", highlight=False, soft_wrap=True)
    # Before the last lines are read: a line written meanwhile is shown twice rather than never.
    coming = follow(settings, servers) if following else iter(())
    shown = (line for name in servers for line in last_lines(settings, name, lines))
    width = max(map(len, servers))
    for line in chain(shown, coming):
        out.write(line.text + "\n" if server else f"{line.server:{width}} | {line.text}\n")
        out.flush()


def missing_logs(settings: Settings, servers: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the servers that have never written a log."""
    return tuple(server for server in servers if not _generations(log_file(settings, server)))


def last_lines(settings: Settings, server: str, count: int) -> list[Line]:
    """The last lines of a server's log, oldest first, going back into rotated files as far as needed."""
    found: deque[bytes] = deque()
    for file in reversed(_generations(log_file(settings, server))):
        if len(found) >= count:
            break
        found.extendleft(reversed(_tail(file, count - len(found))))
    return [_line(settings, server, text) for text in found]


def follow(settings: Settings, servers: tuple[str, ...]) -> Iterator[Line]:
    """Every line written from the first look on, for ever; a server that has no log yet joins when it has one."""
    return _coming([FollowedLog(settings, server) for server in servers])


def _coming(followed: list["FollowedLog"]) -> Iterator[Line]:
    while True:
        lines = [line for log in followed for line in log.new_lines()]
        yield from lines
        if not lines:
            time.sleep(FOLLOW_POLL_S)


class FollowedLog:
    """One server's log from its present end on."""

    def __init__(self, settings: Settings, server: str) -> None:
        self._settings, self._server = settings, server
        self._path = log_file(settings, server)
        self._file: BinaryIO | None = None
        self._unfinished = b""
        if self._path.exists():
            self._file = self._path.open("rb")
            self._file.seek(0, os.SEEK_END)

    def new_lines(self) -> list[Line]:
        """The whole lines written since the last call; of a rotated log the rest first, then what came after."""
        content = self._unfinished + b"".join(self._new_content())
        *whole, self._unfinished = content.split(b"\n")
        return [_line(self._settings, self._server, text) for text in whole]

    def _new_content(self) -> Iterator[bytes]:
        if self._file:
            if os.fstat(self._file.fileno()).st_size < self._file.tell():
                self._file.seek(0)
            yield self._file.read()
        for path in self._newer():
            try:
                newer = path.open("rb")
            except FileNotFoundError:
                # It is being renamed at this moment: the next look finds it.
                return
            if self._file:
                # Written between the read above and the rotation.
                yield self._file.read()
                self._file.close()
            self._file = newer
            yield self._file.read()

    def _newer(self) -> list[Path]:
        generations = _generations(self._path)
        if self._file is None:
            return generations
        ours = os.fstat(self._file.fileno())
        for place, path in enumerate(generations):
            try:
                if os.path.samestat(path.stat(), ours):
                    return generations[place + 1 :]
            except FileNotFoundError:
                return []
        return generations


def _generations(path: Path) -> list[Path]:
    """The rotated files of a log and the log itself that exist, oldest first."""
    rotated = [path.with_name(f"{path.name}.{number}") for number in range(LOG_BACKUPS, 0, -1)]
    return [file for file in (*rotated, path) if file.exists()]


def _tail(file: Path, count: int) -> list[bytes]:
    """The last lines of one file, read from its end in blocks."""
    with file.open("rb") as content:
        position = content.seek(0, os.SEEK_END)
        tail = b""
        # One more line end than lines: the first line found may be cut.
        while position > 0 and tail.count(b"\n") <= count:
            step = min(BLOCK_BYTES, position)
            position -= step
            content.seek(position)
            tail = content.read(step) + tail
    lines = tail.splitlines()
    return lines[-count:] if count else []


def _line(settings: Settings, server: str, text: bytes) -> Line:
    return Line(server, without_secrets(settings, text.decode(errors="replace").rstrip("\r")))
