"""Metrics of the semantic models (`dbt/models/semantic/`), asked of the published warehouse by MetricFlow's `mf`."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings
from stripe_platform.warehouse.model_code import PROJECT_DIR
from stripe_platform.warehouse.project import DBT
from stripe_platform.warehouse.published_dbt import dbt_on_published, target_folder

MF = DBT.with_name("mf")
# Nothing listens there: `mf` asks PyPI for a newer version of itself at each start, and goes on without an answer.
NO_CALL_HOME = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


class NoMetricFlow(StripePlatformError):
    """`mf` is not installed."""

    def __init__(self) -> None:
        super().__init__(f"{MF} is not there: MetricFlow is of the development tools: `uv sync --all-extras`")


class SemanticModelsNotRead(StripePlatformError):
    """`dbt parse` refused the project."""

    def __init__(self, output: str) -> None:
        super().__init__(f"dbt cannot read the semantic models of {PROJECT_DIR}:\n{output.strip()}")


def run_mf(settings: Settings, arguments: Sequence[str]) -> int:
    """Exit code of `mf` with these arguments; it writes to the terminal.

    `NoMetricFlow` when it is not installed, `NoWarehouse` when nothing has been published, `SemanticModelsNotRead`
    when the project does not parse; `OnlyOnDuckDB` and `DbtBusy` as `dbt_on_published`.
    """
    if not MF.exists():
        raise NoMetricFlow
    with dbt_on_published(settings) as environment:
        parsed = subprocess.run(
            [DBT, "--quiet", "--no-use-colors", "parse"],
            cwd=PROJECT_DIR,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if parsed.returncode != 0:
            raise SemanticModelsNotRead(parsed.stdout + parsed.stderr)
        project = _project_with_target(target_folder(settings))
        return subprocess.run(
            [MF, *arguments],
            env=environment | NO_CALL_HOME | {"DBT_PROJECT_DIR": str(project)},
            check=False,
        ).returncode


def _project_with_target(target: Path) -> Path:
    """The project with dbt's target folder in it, where alone `mf` looks for it; the checkout stays as it is."""
    project = target / "project"
    project.mkdir(exist_ok=True)
    for place in (target, *PROJECT_DIR.iterdir()):
        link = project / ("target" if place == target else place.name)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
    return project
