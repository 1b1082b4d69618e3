"""The one way to PostgreSQL."""

import psycopg

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings


class PostgresUnavailable(StripePlatformError):
    """No connection to PostgreSQL could be made."""

    def __init__(self, settings: Settings, cause: psycopg.Error) -> None:
        reason = str(cause).strip().splitlines()[0]
        super().__init__(
            f"no connection to PostgreSQL at {settings.postgres_host}:{settings.postgres_port}, "
            f"database {settings.postgres_database!r}: {reason}; "
            "start the stack with `make up`, or see `stripe-platform status`"
        )


def connect(settings: Settings, *, autocommit: bool = False) -> psycopg.Connection:
    """Open a connection as the owner of the schema, times in UTC; as a context manager it commits and closes.

    Raises `PostgresUnavailable` after at most ten seconds when the server cannot be reached.
    """
    try:
        return psycopg.connect(settings.postgres_conninfo, autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise PostgresUnavailable(settings, error) from error
