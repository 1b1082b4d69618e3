"""The graph loads without a server, and keeps what it writes out of the checkout."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRIPE_PLATFORM_HOME", str(tmp_path_factory.mktemp("graph")))
        yield
