"""dbt's documentation of the published warehouse, as one file for a browser."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.warehouse.project import DBT, PROJECT_DIR
from stripe_platform.warehouse.published import NoWarehouse, published_path

LIMIT_SECONDS = 300


class DocsNotMade(StripePlatformError):
    """`dbt docs generate` failed."""

    def __init__(self, output: str) -> None:
        super().__init__(
            "dbt cannot document the published warehouse: if the project is newer than the marts, build them with "
            f"`stripe-platform run oltp_to_warehouse` and try again:\n{output.strip()}"
        )


def write_docs(settings: Settings) -> Path:
    """Path of an HTML file that shows models, columns, tests, SQL and lineage, with the types as published.

    Reads the published file only: builds, publications and other readers go on meanwhile. `NoWarehouse` when nothing
    has been published, `DocsNotMade` with dbt's words when it fails.
    """
    target = settings.home / "dbt" / "docs"
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock"), timeout=2 * LIMIT_SECONDS), _kept_file(settings, target) as path:
        _generate(path, target)
    return target / "static_index.html"


@contextmanager
def _kept_file(settings: Settings, folder: Path) -> Iterator[Path]:
    """A second name of the file that is published now: the next publication takes only the first one away."""
    kept = folder / "warehouse.duckdb"
    kept.unlink(missing_ok=True)
    try:
        kept.hardlink_to(published_path(settings))
    except FileNotFoundError as error:
        raise NoWarehouse(published_path(settings)) from error
    try:
        yield kept
    finally:
        kept.unlink()


def _generate(path: Path, target: Path) -> None:
    generated = subprocess.run(
        [DBT, "--quiet", "--no-use-colors", "docs", "generate", "--static"],
        cwd=PROJECT_DIR,
        env=os.environ
        | {
            "WAREHOUSE_BUILD_PATH": str(path),
            "WAREHOUSE_ACCESS_MODE": "read_only",
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target),
            "DBT_PROFILES_DIR": str(PROJECT_DIR),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if generated.returncode != 0:
        raise DocsNotMade(generated.stdout + generated.stderr)
