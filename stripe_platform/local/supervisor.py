"""supervisord (PyPI's `supervisor`): its configuration, its daemon and its XML-RPC on a unix socket."""

import hashlib
import http.client
import os
import resource
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults

from stripe_platform.local.credentials import NAMES as SECRET_NAMES
from stripe_platform.local.errors import ServerFailed, ServerTimeout, UnreadableFolder
from stripe_platform.local.server import Program, log_file, run_folder, write_private
from stripe_platform.local.survivors import MARK, wait_for_end
from stripe_platform.settings import Settings

# A unix socket's address holds 108 bytes, and supervisord first binds one with its pid appended.
LONGEST_SOCKET_PATH = 95
RPC_TIMEOUT_S = 10
LAUNCH_TIMEOUT_S = 30
SHUTDOWN_TIMEOUT_S = 15
# Above every stop limit of a program.
STOP_TIMEOUT_S = 60
LOG_BYTES = 20 * 1024 * 1024
LOG_BACKUPS = 3
# A server that ends sooner counts as failed; the pause before the next try grows by a second each time.
START_SECONDS = 3
START_RETRIES = 20
OPEN_FILES = 8192
POLL_S = 0.05


@dataclass(frozen=True)
class Process:
    """What the supervisor says of one program.

    `state` is its word (RUNNING, STOPPED, BACKOFF …), `trouble` why it could not start the program, or empty.
    """

    name: str
    state: str
    pid: int | None
    trouble: str

    @property
    def is_up(self) -> bool:
        """Whether there is a process that was not asked to end."""
        return self.state in ("RUNNING", "STARTING")

    @property
    def is_gone(self) -> bool:
        """Whether there is no process and none will be made."""
        return self.state in ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


class Supervisor:
    """The supervisor of one stack; every call has a time limit."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.home
        self._configuration = run_folder(settings) / "supervisord.conf"
        self._pid_file = run_folder(settings) / "supervisord.pid"
        self._socket = socket_path(settings.home)

    def is_running(self) -> bool:
        """Whether it answers: a pid file or a socket alone proves nothing."""
        try:
            self._call("getState")
        except TimeoutError:
            log = log_file(self._settings, "supervisord")
            raise ServerTimeout("the supervisor", "does not answer", RPC_TIMEOUT_S, log) from None
        except OSError:
            return False
        return True

    def launch(self, programs: Iterable[Program]) -> None:
        """Start the daemon; its programs wait to be started."""
        _private_folder(self._socket.parent)
        self._pid_file.unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)
        write_private(self._configuration, self.render(programs))
        started = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LAUNCH_TIMEOUT_S,
            check=False,
        )
        log = log_file(self._settings, "supervisord")
        if started.returncode != 0:
            log.write_text(started.stdout)
            raise ServerFailed("the supervisor", started.stdout.strip().splitlines()[-1], log)
        self._wait_until(self.is_running, "does not answer", LAUNCH_TIMEOUT_S)

    def update(self, programs: Iterable[Program]) -> None:
        """Take over changed settings: a program that changed is stopped, the others run on."""
        text = self.render(programs)
        if self._configuration.read_text() == text:
            return
        write_private(self._configuration, text)
        ((added, changed, removed),) = self._call("reloadConfig")
        for name in [*changed, *removed]:
            self.stop(name)
            self._call("removeProcessGroup", name)
        for name in [*added, *changed]:
            self._call("addProcessGroup", name)

    def processes(self) -> Mapping[str, Process]:
        """The state of each program by its name."""
        return {entry["name"]: _process(entry) for entry in self._call("getAllProcessInfo")}

    def start(self, name: str) -> None:
        """Have a program started, without waiting for more than its process; its state tells if it failed."""
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in (Faults.SPAWN_ERROR, Faults.ABNORMAL_TERMINATION):
                raise

    def stop(self, name: str) -> None:
        """Have a program stopped, with all the processes of its group; by force after its limit."""
        if self.processes()[name].is_gone:
            return
        try:
            self._call("stopProcess", name, False)
        except xmlrpc.client.Fault:
            # It ended in the meantime.
            return
        self._wait_until(lambda: self.processes()[name].is_gone, f"could not stop {name}", STOP_TIMEOUT_S)

    def shutdown(self) -> None:
        """End the daemon; returns when its process is gone."""
        daemon = psutil.Process(self._call("getPID"))
        self._call("shutdown")
        if wait_for_end([daemon], SHUTDOWN_TIMEOUT_S):
            daemon.kill()

    def _call(self, method: str, *arguments: object) -> Any:
        with xmlrpc.client.ServerProxy("http://supervisor", transport=_UnixTransport(self._socket)) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _wait_until(self, condition: Callable[[], bool], complaint: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise ServerTimeout("the supervisor", complaint, seconds, log_file(self._settings, "supervisord"))
            time.sleep(POLL_S)

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k.lower() not in SECRET_NAMES}
        # Dagster looks for dbt on PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {**inherited, "PATH": path, "TZ": "UTC", MARK: str(self._home)}

    def render(self, programs: Iterable[Program]) -> str:
        """The text of the configuration; it holds secrets."""
        root = {"user": "root"} if os.geteuid() == 0 else {}
        sections: dict[str, Mapping[str, object]] = {
            "unix_http_server": {"file": self._socket, "chmod": "0700"},
            "supervisord": {
                "pidfile": self._pid_file,
                "logfile": log_file(self._settings, "supervisord"),
                "logfile_maxbytes": LOG_BYTES,
                "logfile_backups": LOG_BACKUPS,
                "childlogdir": self._home / "logs",
                "directory": "/",
                "minfds": min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], OPEN_FILES),
                **root,
            },
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
        }
        for program in programs:
            sections[f"program:{program.name}"] = self._section(program)
        return "\n".join(
            f"[{title}]\n" + "".join(f"{key}={_literal(value)}\n" for key, value in entries.items())
            for title, entries in sections.items()
        )

    def _section(self, program: Program) -> Mapping[str, object]:
        section: dict[str, object] = {
            "command": shlex.join(program.command),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": START_SECONDS,
            "startretries": START_RETRIES,
            "stopsignal": program.stop_signal,
            "stopwaitsecs": program.stop_limit,
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": log_file(self._settings, program.name),
            "stdout_logfile_maxbytes": LOG_BYTES,
            "stdout_logfile_backups": LOG_BACKUPS,
            "environment": ",".join(f'{name}="{value}"' for name, value in program.environment.items()),
        }
        if program.user:
            section["user"] = program.user
        if program.folder:
            section["directory"] = program.folder
        return section


def socket_path(home: Path) -> Path:
    """The socket in the home, or in the temporary folder when its path there is too long for a socket."""
    path = home / "run" / "supervisor.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    short = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"stripe-platform-{os.geteuid()}-{short}" / "supervisor.sock"


def remove_socket(home: Path) -> None:
    """Leave no socket behind, nor the folder that was made for it alone."""
    path = socket_path(home)
    path.unlink(missing_ok=True)
    if not path.is_relative_to(home) and path.parent.is_dir():
        path.parent.rmdir()


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    # In the temporary folder anybody may have made one of this name.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise UnreadableFolder(folder, str(os.geteuid()), "it belongs to somebody else: remove it")


def _literal(value: object) -> str:
    return str(value).replace("%", "%%")


def _process(entry: Mapping[str, Any]) -> Process:
    return Process(
        name=entry["name"],
        state=entry["statename"],
        pid=entry["pid"] or None,
        trouble=entry["spawnerr"],
    )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=RPC_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(RPC_TIMEOUT_S)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _UnixConnection(self._path)
