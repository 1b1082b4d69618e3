"""A Snowflake account for tests: fakesnow as a server process of its own, reached by the real connector."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from snowflake.connector.util_text import split_statements
from tenacity import Retrying, stop_after_delay, wait_fixed

from stripe_platform.settings import PROJECT_ROOT, Settings, WarehouseEngine
from stripe_platform.warehouse.snowflake.connection import connected, run

SERVER = Path(__file__).with_name("fakesnow_server.py")
# What of `deploy/snowflake` fakesnow runs; docs/snowflake.md says what becomes of the rest.
RUNS_ON_FAKESNOW = ("create database", "create schema", "create transient schema", "create table")


@contextmanager
def account(home: Path) -> Iterator[Settings]:
    """Settings of an empty account; its server ends with the block."""
    key = home / "key.p8"
    key.write_bytes(generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port = _free_port()
    with (home / "fakesnow.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, SERVER, str(port)], cwd=PROJECT_ROOT, stdout=log, stderr=log)
    try:
        _wait_for(port)
        yield Settings(
            stripe_platform_home=home,
            warehouse=WarehouseEngine.SNOWFLAKE,
            snowflake_account="fakesnow",
            snowflake_user="stripe_platform",
            snowflake_private_key_path=key,
            # fakesnow has neither policies nor roles.
            snowflake_is_governed=False,
            snowflake_url=f"http://127.0.0.1:{port}",
        )
    finally:
        server.terminate()
        server.wait(timeout=30)


def set_up(settings: Settings) -> None:
    """The database, schemas and tables of `deploy/snowflake`, under the name that the settings give the database."""
    with connected(settings, settings.snowflake_role) as connection:
        for statement in statements():
            if statement.lower().startswith(RUNS_ON_FAKESNOW):
                named = re.sub(r"\bstripe\b(?=[. ])", settings.snowflake_database, statement)
                run(connection, "set the account up", named)


def rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """What a statement answers, in the transformer's role."""
    with connected(settings, settings.snowflake_role) as connection:
        return run(connection, "read or write", sql)


def statements() -> list[str]:
    """Every statement of `deploy/snowflake`, in order, without comments before it."""
    found = []
    for file in sorted((PROJECT_ROOT / "deploy" / "snowflake").glob("*.sql")):
        found += [re.sub(r"\A(\s*--.*\n)*\s*", "", sql) for sql, _ in split_statements(StringIO(file.read_text()))]
    return [statement.rstrip(" ;\n") for statement in found if statement]


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.1)):
        with attempt, closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
            pass
