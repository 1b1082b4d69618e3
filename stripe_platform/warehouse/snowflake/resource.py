"""Snowflake for assets of one's own: dagster-snowflake's resource, connected as everything else of the platform is."""

import os

import dagster as dg
from dagster_snowflake import SnowflakeResource

from stripe_platform.settings import Settings
from stripe_platform.warehouse.snowflake.connection import connection_arguments

# What the resource has a field of its own for; the connector's other arguments are handed through.
FIELDS = ("account", "user", "database", "warehouse")
PASSPHRASE = "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"  # noqa: S105 - the name of the variable


def snowflake_resource(settings: Settings) -> SnowflakeResource:
    """A resource in the transformer's role; errors as `connection_arguments`."""
    arguments = connection_arguments(settings)
    passphrase = arguments.pop("private_key_file_pwd", None)
    if passphrase:
        # Dagster shows what a resource was made with, but for what is named as a variable of the environment.
        os.environ[PASSPHRASE] = passphrase
    return SnowflakeResource(
        **{name: arguments.pop(name) for name in FIELDS},
        private_key_path=arguments.pop("private_key_file"),
        private_key_password=dg.EnvVar(PASSPHRASE) if passphrase else None,
        role=settings.snowflake_role,
        additional_snowflake_connection_args=arguments,
    )
