"""How Snowflake is reached: key-pair authentication, times in UTC, and errors that hold no row value."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import snowflake.connector
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import Error

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings

REQUIRED = ("snowflake_account", "snowflake_user", "snowflake_private_key_path")
QUERY_TAG = "stripe_platform"
# For how long a request is sent again, and a statement waits for another transaction, before the run fails.
NETWORK_LIMIT_SECONDS = 60
LOCK_LIMIT_SECONDS = 60


class SnowflakeNotConfigured(StripePlatformError):
    """Settings without which Snowflake cannot be reached are not set."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(
            f"WAREHOUSE=snowflake needs {', '.join(name.upper() for name in missing)}: set what is missing in the "
            "environment or in .env (docs/snowflake.md), or set WAREHOUSE=duckdb"
        )


class NoPrivateKey(StripePlatformError):
    """The file of the private key is not there."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"SNOWFLAKE_PRIVATE_KEY_PATH is {path}, where no file is: make a key pair as docs/snowflake.md says, or "
            "correct the path"
        )


class KeyNotOpened(StripePlatformError):
    """The file of the private key does not give its key."""

    def __init__(self, path: Path, *, has_passphrase: bool) -> None:
        super().__init__(
            f"SNOWFLAKE_PRIVATE_KEY_PASSPHRASE does not open {path}: set the one that the key was encrypted with, or "
            "unset it where the key is not encrypted"
            if has_passphrase
            else f"{path} does not open without a passphrase: set SNOWFLAKE_PRIVATE_KEY_PASSPHRASE if the key is "
            "encrypted, else make a key pair as docs/snowflake.md says"
        )


class SnowflakeUnreachable(StripePlatformError):
    """No session could be opened."""

    def __init__(self, settings: Settings, cause: Error) -> None:
        super().__init__(
            f"Snowflake does not let user {settings.snowflake_user} into account {settings.snowflake_account} "
            f"(error {cause.errno}): check the account's name, the network policy, and that the user's RSA_PUBLIC_KEY "
            f"belongs to {settings.snowflake_private_key_path} (docs/snowflake.md)"
        )


class SnowflakeRefused(StripePlatformError):
    """A statement failed; Snowflake's own words stay in its query history, for they may quote values."""

    def __init__(self, what: str, cause: Error) -> None:
        self.errno = cause.errno
        super().__init__(
            f"Snowflake refused to {what} (error {cause.errno}, SQLSTATE {cause.sqlstate}, query {cause.sfqid}): "
            "look the query up in Snowflake's query history, mend what it names, and run again"
        )


def connection_arguments(settings: Settings) -> dict[str, Any]:
    """What Snowflake's connector needs to open a session, but for the role.

    `SnowflakeNotConfigured` names every setting that is missing, `NoPrivateKey` the path that leads nowhere,
    `KeyNotOpened` the one of a key that the passphrase does not fit.
    """
    if missing := [name for name in REQUIRED if getattr(settings, name) is None]:
        raise SnowflakeNotConfigured(missing)
    key = settings.snowflake_private_key_path
    if key is None or not key.is_file():
        raise NoPrivateKey(key)
    passphrase = _passphrase(settings)
    _require_opens(key, passphrase)
    arguments = {
        "account": settings.snowflake_account,
        "user": settings.snowflake_user,
        "authenticator": "SNOWFLAKE_JWT",
        "private_key_file": str(key),
        "database": settings.snowflake_database,
        "warehouse": settings.snowflake_warehouse,
        "application": QUERY_TAG,
        "login_timeout": NETWORK_LIMIT_SECONDS,
        "network_timeout": NETWORK_LIMIT_SECONDS,
        "session_parameters": {"TIMEZONE": "UTC", "QUERY_TAG": QUERY_TAG, "LOCK_TIMEOUT": LOCK_LIMIT_SECONDS},
    }
    if passphrase:
        arguments["private_key_file_pwd"] = passphrase
    return arguments | address(settings)


def profile_variables(settings: Settings) -> dict[str, str]:
    """What `dbt/profiles.yml` reads of the environment; errors as `connection_arguments`."""
    connection_arguments(settings)
    passphrase = _passphrase(settings)
    variables = {
        "SNOWFLAKE_ACCOUNT": settings.snowflake_account,
        "SNOWFLAKE_USER": settings.snowflake_user,
        "SNOWFLAKE_PRIVATE_KEY_PATH": settings.snowflake_private_key_path,
        # dbt takes out of what it logs the values of variables of such a name.
        "DBT_ENV_SECRET_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": passphrase,
        "SNOWFLAKE_ROLE": settings.snowflake_role,
        "SNOWFLAKE_WAREHOUSE": settings.snowflake_warehouse,
        "SNOWFLAKE_DATABASE": settings.snowflake_database,
        "SNOWFLAKE_SCHEMA": settings.snowflake_schema,
        **{f"SNOWFLAKE_{name.upper()}": part for name, part in address(settings).items()},
    }
    return {name: str(value) for name, value in variables.items()}


def _passphrase(settings: Settings) -> str:
    """Empty where none is set."""
    held = settings.snowflake_private_key_passphrase
    return held.get_secret_value() if held else ""


def _require_opens(key: Path, passphrase: str) -> None:
    try:
        load_pem_private_key(key.read_bytes(), passphrase.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not as its cause: what the library says is of the file's inside.
        raise KeyNotOpened(key, has_passphrase=bool(passphrase)) from None


def address(settings: Settings) -> dict[str, Any]:
    """Host, port and protocol where `SNOWFLAKE_URL` is set; nothing where the account's own address is meant."""
    url = settings.snowflake_url
    return {} if url is None else {"host": url.host, "port": url.port, "protocol": url.scheme}


@contextmanager
def connected(settings: Settings, role: str) -> Iterator[SnowflakeConnection]:
    """A session in the role. `SnowflakeUnreachable` when there is none to be had."""
    arguments = connection_arguments(settings)
    try:
        connection = snowflake.connector.connect(**arguments, role=role)
    except Error as cause:
        raise SnowflakeUnreachable(settings, cause) from None
    with connection:
        yield connection


def run(
    connection: SnowflakeConnection, what: str, statement: str, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Execute one statement and return its rows; `SnowflakeRefused` says `what` could not be done."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement, values or None)
            return [tuple(row) for row in cursor.fetchall()]
        except Error as cause:
            raise SnowflakeRefused(what, cause) from None


@contextmanager
def transaction(connection: SnowflakeConnection) -> Iterator[None]:
    """All statements of the block, or none of them."""
    run(connection, "begin a transaction", "begin")
    try:
        yield
        run(connection, "commit", "commit")
    except BaseException:
        connection.rollback()
        raise
