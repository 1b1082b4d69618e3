"""The dbt project: where it is, its manifest, and the environment that its profile reads."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from dagster_dbt import DbtCliResource, DbtProject
from filelock import FileLock, Timeout

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse.build import build_path
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.snowflake.connection import profile_variables as snowflake_variables

# Beside the interpreter, so that it is found without an activated environment.
DBT = Path(sys.executable).with_name("stripe-platform-dbt")
PARSE_LIMIT_SECONDS = 180


class ManifestNotMade(StripePlatformError):
    """`dbt parse` refused the project."""

    def __init__(self, output: str) -> None:
        super().__init__(f"dbt cannot parse {PROJECT_DIR}: mend the file it names:\n{output.strip()}")


class DbtBusy(StripePlatformError):
    """Another dbt command has what this one needs for itself."""

    def __init__(self, lock: Path, seconds: int) -> None:
        super().__init__(
            f"another dbt command has held {lock} for {seconds} s: wait for it to end, or end it, and run again"
        )


class DbtTooSlow(StripePlatformError):
    """dbt was ended, for it had not come to an end by itself."""

    def __init__(self, arguments: Sequence[str], seconds: int) -> None:
        super().__init__(
            f"`dbt {' '.join(arguments)}` had not ended after {seconds} s: end what else keeps this machine busy, "
            "and run again"
        )


def dbt_project(settings: Settings) -> DbtProject:
    """The dbt project with its target folder in this stack's home, so that stacks do not share one."""
    return DbtProject(PROJECT_DIR, target_path=_target(settings), profiles_dir=PROJECT_DIR)


def dbt_resource(settings: Settings) -> DbtCliResource:
    """The dbt command of this environment for this project."""
    return DbtCliResource(
        project_dir=dbt_project(settings), dbt_executable=str(DBT), global_config_flags=["--no-use-colors"]
    )


def dbt_manifest(settings: Settings) -> Path:
    """Path of a manifest of the project files as they are now.

    Parses (seconds) only when a file or dbt itself has changed since the last time; processes that ask at once wait for
    one of them. `ManifestNotMade` with dbt's words when the project does not parse, `DbtTooSlow` and `DbtBusy` when
    this process or the one that it waits for takes too long.
    """
    target = _target(settings)
    manifest, made_from = target / "manifest.json", target / "made_from.sha256"
    target.mkdir(parents=True, exist_ok=True)
    with only_dbt(target.with_suffix(".lock"), limit_seconds=2 * PARSE_LIMIT_SECONDS):
        digest = _digest(settings)
        if not manifest.exists() or not made_from.exists() or made_from.read_text() != digest:
            made_from.unlink(missing_ok=True)
            _parse(settings, target)
            made_from.write_text(digest)
    return manifest


def new_run_target(settings: Settings, run_id: str) -> Path:
    """A target folder for one invocation of dbt, begun from the parsed project; older ones than the last ten go."""
    runs = _target(settings).with_name("runs")
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(runs.iterdir(), key=lambda folder: folder.stat().st_mtime)[:-9]:
        shutil.rmtree(old, ignore_errors=True)
    run = runs / run_id
    run.mkdir(exist_ok=True)
    parsed = _target(settings) / "partial_parse.msgpack"
    if parsed.exists():
        shutil.copy(parsed, run)
    return run


@contextmanager
def only_dbt(path: Path, *, limit_seconds: int) -> Iterator[None]:
    """Hold a lock of dbt's commands; `DbtBusy` after `limit_seconds`."""
    lock = FileLock(path, timeout=limit_seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise DbtBusy(path, limit_seconds) from error
    try:
        yield
    finally:
        lock.release()


def captured_dbt(
    arguments: Sequence[str], environment: Mapping[str, str], *, limit_seconds: int
) -> subprocess.CompletedProcess[str]:
    """A dbt command that has ended, with what it said; `DbtTooSlow` when it does not end."""
    try:
        return subprocess.run(
            [DBT, "--quiet", "--no-use-colors", *arguments],
            cwd=PROJECT_DIR,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DbtTooSlow(arguments, limit_seconds) from error


@contextmanager
def dbt_environment(settings: Settings) -> Iterator[None]:
    """The variables that `profiles.yml` reads, for as long as the block lasts."""
    added = _profile_variables(settings)
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _profile_variables(settings: Settings) -> dict[str, str]:
    if settings.warehouse is WarehouseEngine.SNOWFLAKE:
        return {"WAREHOUSE": settings.warehouse, **snowflake_variables(settings)}
    return {"WAREHOUSE": settings.warehouse, "WAREHOUSE_BUILD_PATH": str(build_path(settings))}


def _target(settings: Settings) -> Path:
    return settings.home / "dbt" / "target"


def _digest(settings: Settings) -> str:
    """What a manifest depends on: every file of the project, the engine, and the versions that read them."""
    packages = ("dbt-core", "dbt-duckdb", "dbt-snowflake")
    digest = hashlib.sha256(" ".join([settings.warehouse, *map(version, packages)]).encode())
    for path in sorted(PROJECT_DIR.rglob("*")):
        if path.suffix in {".sql", ".yml", ".md"}:
            digest.update(str(path.relative_to(PROJECT_DIR)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _parse(settings: Settings, target: Path) -> None:
    parsed = captured_dbt(
        ["parse"],
        os.environ
        | _profile_variables(settings)
        | {
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target),
            "DBT_PROFILES_DIR": str(PROJECT_DIR),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        },
        limit_seconds=PARSE_LIMIT_SECONDS,
    )
    if parsed.returncode != 0:
        raise ManifestNotMade(parsed.stdout + parsed.stderr)
