"""dbt's documentation of the published warehouse, as one file for a browser."""

from pathlib import Path

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.warehouse.project import captured_dbt
from stripe_platform.warehouse.published_dbt import dbt_on_published, target_folder

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

    Builds, publications and readers go on meanwhile. `NoWarehouse` when nothing has been published, `DocsNotMade` with
    dbt's words when it fails, `DbtTooSlow`; `OnlyOnDuckDB` and `DbtBusy` as `dbt_on_published`.
    """
    with dbt_on_published(settings) as environment:
        generated = captured_dbt(["docs", "generate", "--static"], environment, limit_seconds=LIMIT_SECONDS)
    if generated.returncode != 0:
        raise DocsNotMade(generated.stdout + generated.stderr)
    return target_folder(settings) / "static_index.html"
