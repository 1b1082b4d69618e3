"""PostgreSQL 16: initialised once, logical replication on, only on 127.0.0.1."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from stripe_platform.local.artifacts import postgres_folder
from stripe_platform.local.errors import ServerFailed, UnreadableFolder
from stripe_platform.local.server import Program, Server, log_file
from stripe_platform.settings import Settings

# PostgreSQL refuses to run as root.
UNPRIVILEGED_USER = "nobody"
# Data of stacks whose home that user cannot reach; root's own homes are such, for /root is closed.
REACHABLE_FOLDER = Path("/var/lib/stripe-platform")
INITDB_TIMEOUT_S = 120
PROBE_TIMEOUT_S = 3
FINISH_TIMEOUT_S = 30

SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    # A connector that is gone for long loses its slot before the disk is full.
    "max_slot_wal_keep_size": "10GB",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "maintenance_work_mem": "128MB",
    "checkpoint_timeout": "15min",
    "log_line_prefix": "%m [%p] %q%a ",
    # A statement holds row values.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def data_folder(settings: Settings) -> Path:
    """In the home, or where a link there leads when PostgreSQL runs as a user who cannot reach it."""
    in_home = settings.home / "postgres"
    user = _run_as()
    if user and not in_home.exists() and not can_reach(settings.home, user):
        return folder_elsewhere(settings)
    return in_home.resolve()


def folder_elsewhere(settings: Settings) -> Path:
    """Where the data of this home lies when PostgreSQL's user cannot reach the home; of no other home."""
    return REACHABLE_FOLDER / hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]


def give_up_durability(settings: Settings) -> None:
    """For tests: commits are fast, and a power cut breaks the database. It stays so for this home."""
    with psycopg.connect(_conninfo(settings), autocommit=True, connect_timeout=PROBE_TIMEOUT_S) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(sql.SQL("ALTER SYSTEM SET {} TO off").format(sql.Identifier(name)))
        connection.execute("SELECT pg_reload_conf()")


def can_reach(folder: Path, user: pwd.struct_passwd) -> bool:
    """Whether the user may pass through the folder and all that it lies in."""
    return all(_passable(parent.stat(), user) for parent in (folder, *folder.parents))


def _passable(status: os.stat_result, user: pwd.struct_passwd) -> bool:
    if status.st_uid == user.pw_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & stat.S_IXOTH)


def _run_as() -> pwd.struct_passwd | None:
    return pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None


def _prepare(settings: Settings) -> None:
    user = _run_as()
    if user and not can_reach(postgres_folder(), user):
        raise UnreadableFolder(
            postgres_folder(),
            user.pw_name,
            "set XDG_CACHE_HOME to a folder that everybody may read, or unset it",
        )
    folder = data_folder(settings)
    link = settings.home / "postgres"
    if folder != link and not link.exists():
        _place_elsewhere(link, folder)
    if not (folder / "PG_VERSION").exists():
        _initialise(settings, folder, user)
    drop_stale_pid_file(folder)


def _place_elsewhere(link: Path, folder: Path) -> None:
    folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    # Without the link it belongs to a home of this name that was deleted.
    shutil.rmtree(folder, ignore_errors=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder)


def _initialise(settings: Settings, folder: Path, user: pwd.struct_passwd | None) -> None:
    # Renamed when it is whole: initdb cut short must not leave what looks like a database.
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=unfinished.parent, prefix=".initdb-") as password:
        password.write(settings.secret("postgres_password"))
        password.flush()
        if user:
            os.chown(unfinished, user.pw_uid, user.pw_gid)
            os.chown(password.name, user.pw_uid, user.pw_gid)
        made = subprocess.run(
            [
                str(postgres_folder() / "bin" / "initdb"),
                f"--pgdata={unfinished}",
                "--encoding=UTF8",
                # Sorts by code point, the same everywhere and fastest.
                "--locale=C",
                f"--username={settings.postgres_user}",
                "--auth=scram-sha-256",
                f"--pwfile={password.name}",
                "--no-instructions",
            ],
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            check=False,
        )
    if made.returncode != 0:
        log = log_file(settings, "postgres")
        log.write_text(made.stdout + made.stderr)
        raise ServerFailed("PostgreSQL", "initdb ended with an error", log)
    if folder.is_dir():
        folder.rmdir()
    unfinished.rename(folder)


def drop_stale_pid_file(folder: Path) -> None:
    """Remove PostgreSQL's pid file when the process of that number is not PostgreSQL's."""
    file = folder / "postmaster.pid"
    if not file.exists():
        return
    pid = int(file.read_text().split("\n", 1)[0] or 0)
    # After a power cut the number may belong to any process, and PostgreSQL would take that for itself.
    if not psutil.pid_exists(pid) or psutil.Process(pid).name() != "postgres":
        file.unlink()


def _program(settings: Settings) -> Program:
    options = {**SERVER_SETTINGS, "port": str(settings.postgres_port)}
    user = _run_as()
    return Program(
        name="postgres",
        command=(
            str(postgres_folder() / "bin" / "postgres"),
            "-D",
            str(data_folder(settings)),
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        ),
        user=user.pw_name if user else None,
        # Fast shutdown: open transactions are rolled back rather than waited for.
        stop_signal="INT",
        stop_limit=30,
    )


def _conninfo(settings: Settings) -> str:
    return psycopg.conninfo.make_conninfo(settings.postgres_conninfo, dbname="postgres")


def _why_not_ready(settings: Settings) -> str | None:
    try:
        with psycopg.connect(_conninfo(settings), connect_timeout=PROBE_TIMEOUT_S):
            return None
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ServerFailed(
                "PostgreSQL",
                f"its data folder was made with another password than the one in {settings.secrets} or the "
                "environment: put that back, or remove the data folder to begin anew",
                log_file(settings, "postgres"),
            ) from None
        return "it does not accept connections yet"


def _finish(settings: Settings) -> None:
    name = settings.postgres_database
    with psycopg.connect(
        _conninfo(settings),
        autocommit=True,
        connect_timeout=PROBE_TIMEOUT_S,
        options=f"-c statement_timeout={FINISH_TIMEOUT_S}s",
    ) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        wanted = {"search_path=payments, public", "TimeZone=UTC"}
        row = connection.execute(
            "SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
            "WHERE d.datname = %s AND s.setrole = 0",
            [name],
        ).fetchone()
        if not row or not wanted <= set(row[0]):
            database = sql.Identifier(name)
            connection.execute(sql.SQL("ALTER DATABASE {} SET search_path TO payments, public").format(database))
            connection.execute(sql.SQL("ALTER DATABASE {} SET timezone TO 'UTC'").format(database))


POSTGRES = Server(
    name="postgres",
    title="PostgreSQL",
    ports=lambda settings: {"POSTGRES_PORT": settings.postgres_port},
    prepare=_prepare,
    program=_program,
    why_not_ready=_why_not_ready,
    finish=_finish,
)
