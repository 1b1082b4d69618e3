"""Logs in a temporary folder; Delta tables are files, so no server is needed."""

from pathlib import Path

import pytest

from stripe_platform.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(stripe_platform_home=tmp_path)
