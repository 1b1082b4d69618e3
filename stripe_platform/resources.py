"""The resources of every asset: which engine serves which environment stands here and nowhere else."""

from collections.abc import Mapping

from stripe_platform.environment import Environment
from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse.project import dbt_resource
from stripe_platform.warehouse.snowflake.resource import snowflake_resource

# Every environment is named: there is no fallback, least of all to a warehouse that others share.
WAREHOUSES: Mapping[Environment, frozenset[WarehouseEngine]] = {
    Environment.LOCAL: frozenset({WarehouseEngine.DUCKDB, WarehouseEngine.SNOWFLAKE}),
    Environment.DOCKER: frozenset({WarehouseEngine.DUCKDB, WarehouseEngine.SNOWFLAKE}),
    Environment.CLOUD: frozenset({WarehouseEngine.SNOWFLAKE}),
}


class UnsupportedWarehouse(StripePlatformError):
    """The warehouse engine does not serve the environment."""

    def __init__(self, settings: Settings) -> None:
        allowed = ", ".join(sorted(WAREHOUSES[settings.stripe_platform_env]))
        super().__init__(
            f"WAREHOUSE={settings.warehouse} does not serve STRIPE_PLATFORM_ENV={settings.stripe_platform_env} "
            f"(engines there: {allowed}): change one of the two settings"
        )


def resources_for(settings: Settings) -> dict[str, object]:
    """The resources by key; `UnsupportedWarehouse` where environment and engine do not go together.

    With WAREHOUSE=snowflake, `SnowflakeNotConfigured` names the settings that are missing.
    """
    if settings.warehouse not in WAREHOUSES[settings.stripe_platform_env]:
        raise UnsupportedWarehouse(settings)
    resources: dict[str, object] = {"settings": settings, "dbt": dbt_resource(settings)}
    if settings.warehouse is WarehouseEngine.SNOWFLAKE:
        resources["snowflake"] = snowflake_resource(settings)
    return resources
