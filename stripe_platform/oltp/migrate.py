"""Numbered SQL files, each applied once, in order, in a transaction of its own, and never edited afterwards."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise

import psycopg

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.replication import ensure_replication, published_tables, refresh_replication
from stripe_platform.settings import Settings

MIGRATIONS = files(__package__) / "migrations"

_FILE_NAME = re.compile(r"(?P<number>\d{4})_[a-z0-9_]+\.sql")
# Any fixed number serves: two migrators of one database wait for one another on it.
_LOCK = 7_316_410_052


class MigrationError(StripePlatformError):
    """The migrations and the database do not fit together."""


class MigrationFailed(MigrationError):
    """PostgreSQL refused a migration; its transaction was rolled back."""

    def __init__(self, name: str, sql: str, error: psycopg.Error) -> None:
        position = error.diag.statement_position
        line = f", line {sql.count(chr(10), 0, int(position)) + 1}" if position else ""
        # The primary message alone: the detail may hold row values.
        super().__init__(
            f"migration {name}{line}: {error.diag.message_primary or error.__class__.__name__}; "
            "nothing of this file was applied: mend it and migrate again"
        )


@dataclass(frozen=True)
class Migration:
    """One SQL file; `checksum` is the SHA-256 of its text with Unix line ends."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Hexadecimal SHA-256 of the file's text."""
        return sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True)
class MigrationReport:
    """What a call of `migrate` did: the files it applied, those it found applied, whether replication changed."""

    applied: tuple[str, ...]
    already_applied: tuple[str, ...]
    replication_changed: bool


def read_migrations(folder: Traversable = MIGRATIONS) -> tuple[Migration, ...]:
    """Read `NNNN_name.sql` files in order of their numbers; `MigrationError` for a stray name or a number
    used twice."""
    migrations: list[Migration] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".sql"):
            continue
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"migration {file.name!r} is not named NNNN_what_it_does.sql: rename it")
        sql = file.read_text("utf-8").replace("\r\n", "\n")
        migrations.append(Migration(int(match["number"]), file.name, sql))
    for earlier, later in pairwise(migrations):
        if earlier.number == later.number:
            raise MigrationError(f"{earlier.name} and {later.name} have one number: renumber the newer")
    return tuple(migrations)


def pending(migrations: Sequence[Migration], applied: dict[str, str]) -> tuple[Migration, ...]:
    """The migrations still to apply, given the checksums by name of those applied.

    Raises `MigrationError` when an applied file was edited or is gone, or a new one is numbered before an
    applied one.
    """
    known = {migration.name: migration for migration in migrations}
    unknown = sorted(applied.keys() - known.keys())
    if unknown:
        raise MigrationError(
            f"the database has migration {unknown[0]}, which this version does not know: use the newer version"
        )
    for name, checksum in applied.items():
        if known[name].checksum != checksum:
            raise MigrationError(
                f"migration {name} was edited after it was applied: restore the file and write the change as a new one"
            )
    newest = max((known[name].number for name in applied), default=-1)
    remaining = tuple(migration for migration in migrations if migration.name not in applied)
    for migration in remaining:
        if migration.number < newest:
            raise MigrationError(
                f"migration {migration.name} is numbered before {newest:04}, which is applied: renumber it after"
            )
    return remaining


def migrate(settings: Settings, folder: Traversable = MIGRATIONS) -> MigrationReport:
    """Apply what is pending, then bring role, grants and publication of replication in line; again changes
    nothing.

    A file, its record and the publication it changes commit together, so that no row written under a new
    schema is published under the old one. Raises `MigrationError` or an error of replication; what
    committed before stays.
    """
    migrations = read_migrations(folder)
    with connect(settings, autocommit=True) as connection, _alone(connection):
        _ensure_record(connection)
        rows = connection.execute("SELECT name, checksum FROM public.schema_migrations ORDER BY name").fetchall()
        applied: dict[str, str] = dict(rows)
        to_apply = pending(migrations, applied)
        for migration in to_apply:
            _apply(connection, migration)
        changed = ensure_replication(connection, settings)
    return MigrationReport(tuple(migration.name for migration in to_apply), tuple(applied), changed)


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    connection.execute("SET lock_timeout = '60s'; SET statement_timeout = '15min'")
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationError("another migration has been running for a minute: wait for it and try again") from error
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _ensure_record(connection: psycopg.Connection) -> None:
    if connection.execute("SELECT to_regclass('public.schema_migrations')").fetchone() != (None,):
        return
    connection.execute(
        "CREATE TABLE public.schema_migrations ("
        "name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    try:
        # Else what the last migration changed would count as this one's changes.
        connection.execute("SELECT pg_stat_force_next_flush()")
        with connection.transaction():
            published = published_tables(connection)
            connection.execute(migration.sql.encode())
            connection.execute(
                "INSERT INTO public.schema_migrations (name, checksum) VALUES (%s, %s)",
                [migration.name, migration.checksum],
            )
            refresh_replication(connection, published)
    except psycopg.Error as error:
        raise MigrationFailed(migration.name, migration.sql, error) from error
