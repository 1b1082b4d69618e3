"""What can go wrong with the servers on this machine.

LocalStackError
├── ArtifactError          a jar or archive cannot be fetched, or is not the one that was pinned
├── UnsupportedMachine     no servers are packaged for this operating system or processor
├── MissingProgram         no usable Java or mongod
├── MissingLibrary         a server needs a system library that is not installed
├── UnreadableFolder       the unprivileged user cannot reach a folder it needs
├── ForeignHome            the stack's folder belongs to another user
├── UnreachableHome        the stack's folder cannot be made or entered
├── NotThisMachine         a server's host is set to another machine
├── NotEnoughDisk
├── PortTaken
├── ServerFailed           a server ended while it was starting
├── ServerTimeout          a server did not get ready, or did not stop, in time
├── StackBusy              another command starts or stops the same stack
├── BadSecret              a secret that cannot be handed over
├── UnknownServer          no server has the name
├── HomeTaken              the folder holds what is not the stack's, under the stack's names
├── NotAStack              a folder that `reset` had better not touch
├── NotRemoved             a file or folder that `reset` could not remove
├── ResetNotConfirmed
└── ResetUnfinished        what is left of the stack's data does not belong together
"""

from collections.abc import Iterable
from pathlib import Path

from stripe_platform.errors import StripePlatformError


class LocalStackError(StripePlatformError):
    """The root of what the local stack raises."""


class ArtifactError(LocalStackError):
    """A pinned file could not be fetched whole and unchanged."""

    def __init__(self, artifact: str, cause: str) -> None:
        super().__init__(
            f"{artifact}: {cause}; Maven Central must be reachable for the first start "
            "(later ones need no network): check the network or proxy, then try again"
        )


class ChecksumMismatch(ArtifactError):
    """What was fetched is not what was pinned."""

    def __init__(self, artifact: str, expected: str, actual: str) -> None:
        super().__init__(artifact, f"its SHA-256 is {actual}, pinned is {expected}: it was changed on its way")


class UnsupportedMachine(LocalStackError):
    """The servers come as x86-64 Linux binaries."""

    def __init__(self, system: str, machine: str) -> None:
        super().__init__(
            f"the local stack runs on x86-64 Linux, this is {system} {machine}: "
            "use the environment `docker` (STRIPE_PLATFORM_ENV=docker) or an x86-64 machine"
        )


class MissingProgram(LocalStackError):
    """A server's program is neither on the machine nor in the environment."""

    def __init__(self, program: str, remedy: str) -> None:
        super().__init__(f"no usable {program} was found: {remedy}")


class MissingLibrary(LocalStackError):
    """The dynamic linker did not find what a server needs."""

    def __init__(self, server: str, library: str, package: str) -> None:
        super().__init__(
            f"{server} needs the system library {library}, which is not installed: "
            f"`apt-get install {package}` (or your distribution's package of it), then try again"
        )


class UnreadableFolder(LocalStackError):
    """Servers that refuse root run as another user, who must be able to reach their files."""

    def __init__(self, folder: Path, user: str, remedy: str) -> None:
        super().__init__(f"{folder} cannot be read by the user {user!r}, as whom PostgreSQL runs: {remedy}")


class ForeignHome(LocalStackError):
    """What one user's servers wrote, another user's cannot use."""

    def __init__(self, home: Path, owner: int) -> None:
        super().__init__(
            f"the stack in {home} was started by the user with the id {owner}: go on as that user, "
            "or set STRIPE_PLATFORM_HOME to a folder of your own"
        )


class UnreachableHome(LocalStackError):
    """The user may not make, or not enter, the folder that the stack is to live in."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"the stack's folder {home} cannot be made or entered (permission denied): "
            "set STRIPE_PLATFORM_HOME to a folder of your own"
        )


class NotThisMachine(LocalStackError):
    """The local stack listens on 127.0.0.1 alone."""

    def __init__(self, setting: str, host: str) -> None:
        super().__init__(
            f"{setting.upper()} is {host}, but the local stack runs on this machine, on 127.0.0.1 alone: "
            f"unset {setting.upper()}, or set STRIPE_PLATFORM_ENV to the environment that {host} belongs to"
        )


class NotEnoughDisk(LocalStackError):
    """Starting or writing on a full disk would end in broken data files."""

    def __init__(self, folder: Path, free: int, needed: int) -> None:
        super().__init__(
            f"only {free / 1e9:.1f} GB are free at {folder}, {needed / 1e9:.1f} GB are needed (LEAST_FREE_BYTES): "
            "free some and go on, nothing is lost; or set STRIPE_PLATFORM_HOME to a folder on a larger disk"
        )


class PortTaken(LocalStackError):
    """Another process listens where a server of ours should."""

    def __init__(self, server: str, port: int, setting: str, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"port {port} for {server} is taken{by}: end that process, "
            f"or set {setting} to a free port (in .env or the environment)"
        )


class ServerFailed(LocalStackError):
    """A server ended by itself instead of getting ready."""

    def __init__(self, server: str, reason: str, log: Path) -> None:
        super().__init__(f"{server} failed to start: {reason}; its log is {log}")


class ServerTimeout(LocalStackError):
    """A server is there but does not do what was asked within its time."""

    def __init__(self, server: str, what: str, seconds: float, log: Path) -> None:
        super().__init__(
            f"{server} {what} within {seconds:.0f} s: see its log {log}; on a busy machine simply try again"
        )


class BadSecret(LocalStackError):
    """A secret with characters that cannot be handed to the supervisor."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name.upper()} holds a quotation mark, a backslash or a blank, which cannot be handed to "
            "the servers: choose another value, or unset it to have one generated"
        )


class StackBusy(LocalStackError):
    """Another command starts or stops the same stack, and has not finished."""

    def __init__(self, home: Path, seconds: float) -> None:
        super().__init__(
            f"another command has been starting or stopping the stack in {home} for {seconds:.0f} s: "
            "wait for it or end it, then try again"
        )


class UnknownServer(LocalStackError):
    """No server of the stack has the name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no server {name!r}: the servers are {', '.join(known)}")


class HomeTaken(LocalStackError):
    """A stack in this folder would mix with somebody's files, and a reset would remove them."""

    def __init__(self, home: Path, names: Iterable[str]) -> None:
        super().__init__(
            f"{home} is no stack's folder, but holds {', '.join(names)}, which a stack would write to and a reset "
            "remove: set STRIPE_PLATFORM_HOME to a new folder, or move these away"
        )


class NotAStack(LocalStackError):
    """Removing what lies in the folder would take more than a stack's data."""

    def __init__(self, home: Path, reason: str) -> None:
        super().__init__(
            f"nothing was removed: {home} {reason}; set STRIPE_PLATFORM_HOME to the folder of the stack that you mean"
        )


class NotRemoved(LocalStackError):
    """The operating system refused, or a process made something anew as fast as it was removed."""

    def __init__(self, path: Path, reason: OSError) -> None:
        super().__init__(
            f"{path} could not be removed ({reason.strerror}): end whatever writes there (a run, `dagster dev`; "
            f"`fuser -v -m {path}` names it), then finish with `stripe-platform reset --yes`"
        )


class ResetNotConfirmed(LocalStackError):
    """Nobody is there to be asked."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"nothing was removed: a reset deletes all data in {home} and asks first, but there is no terminal to "
            "ask on: call it from one, or say `stripe-platform reset --yes`"
        )


class ResetUnfinished(LocalStackError):
    """A reset was cut short between two folders: a log without its database must not be started on."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"a reset of {home} was cut short, and what is left does not belong together: "
            "finish it with `stripe-platform reset --yes`, then try again"
        )
