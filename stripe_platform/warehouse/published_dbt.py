"""dbt's commands on the published warehouse, which they can only read."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stripe_platform.local.disk import check_free_space
from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import only_dbt
from stripe_platform.warehouse.published import NoWarehouse, published_path, require_published_file

LOCK_LIMIT_SECONDS = 600


def target_folder(settings: Settings) -> Path:
    """Where these commands leave what they make."""
    return settings.home / "dbt" / "published"


@contextmanager
def dbt_on_published(settings: Settings) -> Iterator[dict[str, str]]:
    """The environment for one dbt command, to be run in `PROJECT_DIR`; the next command waits for the block's end.

    Builds, publications and other readers go on meanwhile. `NoWarehouse` when nothing has been published,
    `OnlyOnDuckDB` when the marts are not in a file, `DbtBusy` when the command before does not end.
    """
    require_published_file(settings, "dbt")
    folder = target_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    lock = only_dbt(folder.with_suffix(".lock"), limit_seconds=LOCK_LIMIT_SECONDS)
    with lock, _kept_file(settings, folder) as path:
        yield os.environ | {
            "WAREHOUSE": WarehouseEngine.DUCKDB,
            "WAREHOUSE_BUILD_PATH": str(path),
            "WAREHOUSE_ACCESS_MODE": "read_only",
            "DBT_TARGET_PATH": str(folder),
            "DBT_LOG_PATH": str(folder),
            "DBT_PROFILES_DIR": str(PROJECT_DIR),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }


@contextmanager
def _kept_file(settings: Settings, folder: Path) -> Iterator[Path]:
    """A second name of the file that is published now: the next publication takes only the first one away.

    A copy, where the file system gives a file no second name.
    """
    kept = folder / "warehouse.duckdb"
    kept.unlink(missing_ok=True)
    try:
        kept.hardlink_to(published_path(settings))
    except FileNotFoundError as error:
        raise NoWarehouse(published_path(settings)) from error
    except OSError:
        check_free_space(settings, into=folder, size=published_path(settings).stat().st_size)
        shutil.copyfile(published_path(settings), kept)
    try:
        yield kept
    finally:
        kept.unlink()
