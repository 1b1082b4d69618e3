from pathlib import Path

import pytest

from stripe_platform.dashboard.queries import cut_made_at
from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse.published import OnlyOnDuckDB
from stripe_platform_tests.integration.dashboard.published_marts import publish_marts


def test_a_file_left_from_before_the_marts_moved_to_snowflake_is_not_shown(tmp_path: Path) -> None:
    publish_marts(Settings(stripe_platform_home=tmp_path))
    assert cut_made_at(Settings(stripe_platform_home=tmp_path))
    with pytest.raises(OnlyOnDuckDB, match=r"WAREHOUSE is 'snowflake'.*stripe-platform sql"):
        cut_made_at(Settings(stripe_platform_home=tmp_path, warehouse=WarehouseEngine.SNOWFLAKE))
