"""The published warehouse file: where it is, and how to open it while the next one takes its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings, WarehouseEngine

FILE_NAME = "warehouse.duckdb"
OPEN_LIMIT = timedelta(seconds=10)


class NoWarehouse(StripePlatformError):
    """Nothing has been published yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no warehouse yet at {path}: build it with `stripe-platform run oltp_to_warehouse`")


class OnlyOnDuckDB(StripePlatformError):
    """The marts are built elsewhere: what is in the published file, if there is one, is out of date."""

    def __init__(self, reader: str, engine: WarehouseEngine) -> None:
        super().__init__(
            f"{reader} reads DuckDB's published file, and WAREHOUSE is {engine.value!r}: set WAREHOUSE=duckdb "
            "and run `stripe-platform run oltp_to_warehouse`, or query the marts where they are: `stripe-platform sql`"
        )


class WarehouseUnreadable(StripePlatformError):
    """The published file cannot be opened."""

    def __init__(self, path: Path, reason: duckdb.Error) -> None:
        super().__init__(
            f"{path} cannot be opened: {reason}; end whatever writes to it (readers open it read only), or "
            "publish it anew with `stripe-platform run oltp_to_warehouse`"
        )


def published_path(settings: Settings) -> Path:
    """Path of `warehouse.duckdb`, which every reader opens read only."""
    return settings.warehouse_folder / FILE_NAME


def require_published_file(settings: Settings, reader: str) -> None:
    """`OnlyOnDuckDB`, said of the reader, where the published file is not what `WAREHOUSE` builds."""
    if settings.warehouse is not WarehouseEngine.DUCKDB:
        raise OnlyOnDuckDB(reader, settings.warehouse)


@contextmanager
def published_connection(settings: Settings, *, limit: timedelta | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection, times in UTC; it sees one published build for as long as it is open.

    `NoWarehouse` when nothing has been published, `WarehouseUnreadable` when the file stays closed for `limit`
    (by default `OPEN_LIMIT`).
    """
    path = published_path(settings)
    if not path.exists():
        raise NoWarehouse(path)
    try:
        opened = _open(path, limit or OPEN_LIMIT)
    except duckdb.Error as error:
        raise WarehouseUnreadable(path, error) from error
    with opened as connection:
        connection.execute("set TimeZone = 'UTC'")
        yield connection


def _open(path: Path, limit: timedelta) -> duckdb.DuckDBPyConnection:
    # DuckDB opens the path more than once: a file that is replaced in between looks damaged to it for that moment.
    attempts = Retrying(
        retry=retry_if_exception_type(duckdb.Error),
        wait=wait_exponential_jitter(multiplier=0.02, max=0.5),
        stop=stop_after_delay(limit),
        reraise=True,
    )
    return attempts(lambda: duckdb.connect(str(path), read_only=True))
