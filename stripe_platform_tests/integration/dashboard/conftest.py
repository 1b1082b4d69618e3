"""The dashboard as `make up` serves it, and a real browser."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page, sync_playwright

from stripe_platform.local.dashboard import DASHBOARD
from stripe_platform.local.stack import start_beside
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.dashboard.reading import LIMIT_MS

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Where it is yesterday for half of a UTC day.
FAR_WEST = "Pacific/Pago_Pago"


def _find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def browser_path() -> str:
    """On a clean machine of CI the browser is installed; nobody else's machine is changed."""
    if os.environ.get("CI") and os.geteuid() == 0:
        # Another worker may be at it.
        with FileLock(Path(tempfile.gettempdir()) / "stripe-platform-test-browser.lock"):
            if _find_browser() is None:
                for command in ("update", "install --yes --no-install-recommends chromium"):
                    subprocess.run(["apt-get", "--quiet", *command.split()], check=True, timeout=140)
    path = _find_browser()
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on PATH (`apt-get install chromium`)")
    return path


@pytest.fixture(scope="module")
def browser(browser_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser_path) as launched:
        yield launched


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(timezone_id=FAR_WEST) as context:
        context.set_default_timeout(LIMIT_MS)
        yield context.new_page()


@pytest.fixture(scope="module")
def served(new_settings: Callable[[], Settings]) -> Settings:
    """A dashboard that listens, of a stack whose servers do not run and that has published nothing."""
    settings = new_settings()
    start_beside(settings, DASHBOARD)
    return settings
