"""What the end-to-end tests share: the command line as a user calls it, and a file of payments."""

import csv
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stripe_platform.local.environment import environment
from stripe_platform.oltp.sample import write_sample
from stripe_platform.settings import PROJECT_ROOT, Settings

COMMAND_LIMIT_S = 240


class CommandLine:
    """`stripe-platform` on one stack, each call a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command, running."""
        return subprocess.Popen(
            [sys.executable, "-m", "stripe_platform.cli", *arguments],
            env={**os.environ, **environment(self.settings)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> str:
        """What the command wrote to stdout; fails the test when the exit code is not 0."""
        with self.start(*arguments) as process:
            out, error = process.communicate(timeout=COMMAND_LIMIT_S)
        assert process.returncode == 0, f"{arguments} exited with {process.returncode}:\n{error[-4000:]}"
        return out

    def rows(self, sql: str) -> list[dict[str, str]]:
        """The rows that `sql --csv` gives."""
        return list(csv.DictReader(io.StringIO(self("sql", "--csv", sql))))


@pytest.fixture(scope="session")
def command_line() -> Callable[[Settings], CommandLine]:
    return CommandLine


@pytest.fixture(scope="session")
def payments_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 payments: published ones where they lie beside the checkout, as in CI; else as many of our own."""
    published = PROJECT_ROOT.parent / "shared" / "data" / "handbook_payments_20k.parquet"
    if published.exists():
        return published
    own = tmp_path_factory.mktemp("payments") / "payments.parquet"
    write_sample(own, payments=20_000)
    return own
