"""Typed settings, read from the environment, then `.env`, then the generated secrets of the local stack."""

from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, get_args

from psycopg.conninfo import make_conninfo
from pydantic import AfterValidator, AnyHttpUrl, ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from stripe_platform.environment import Environment
from stripe_platform.errors import StripePlatformError

PROJECT_ROOT = Path(__file__).resolve().parent.parent

DEFAULT_KAFKA_PORT = 9092
CONTROLLER_PORT_DISTANCE = 10_000
HIGHEST_PORT = 65_535

Port = Annotated[int, Field(ge=1, le=HIGHEST_PORT)]
Days = Annotated[int, Field(ge=1)]


def _absolute(path: Path) -> Path:
    if "@ROOT@" in str(path):
        raise ValueError("replace @ROOT@ in .env by the project's folder, or delete .env and run `make up`")
    return (PROJECT_ROOT / path.expanduser()).resolve()


# A relative home means the same folder from wherever the command is typed.
Home = Annotated[Path, AfterValidator(_absolute)]


class WarehouseEngine(StrEnum):
    """The engine that dbt builds the marts on."""

    DUCKDB = "duckdb"
    SNOWFLAKE = "snowflake"


class MissingSecret(StripePlatformError):
    """A secret that has no default was not set."""

    def __init__(self, name: str, secrets: Path) -> None:
        super().__init__(
            f"{name.upper()} is not set: `make up` generates it for the local stack into {secrets}; "
            "elsewhere set it in the environment"
        )


class BadSettings(StripePlatformError):
    """Settings that are not what they have to be; of secrets only the names are told."""

    def __init__(self, cause: ValidationError) -> None:
        faults = "; ".join(_fault(error) for error in cause.errors(include_url=False))
        super().__init__(f"{faults}; set it right in the environment or in {PROJECT_ROOT / '.env'}, or unset it")


class UnreadableSecrets(StripePlatformError):
    """The generated secrets belong to somebody else, or are no files."""

    def __init__(self, secrets: Path, cause: BaseException) -> None:
        reason = cause.strerror if isinstance(cause, OSError) else type(cause).__name__
        super().__init__(
            f"the secrets in {secrets} cannot be read ({reason}): go on as the user who started the stack, "
            "or set STRIPE_PLATFORM_HOME to a folder of your own"
        )


def _fault(error: ErrorDetails) -> str:
    what = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not error["loc"]:
        return what
    name = str(error["loc"][0])
    # Where a setting is a secret, so may be what was put into its place.
    is_secret = SecretStr in get_args(Settings.model_fields[name].annotation)
    return f"{name.upper()} {what}" if is_secret else f"{name.upper()} is {error['input']!r}: {what}"


class _HomeSetting(BaseSettings):
    """Read first, for the home folder says where the generated secrets are."""

    model_config = SettingsConfigDict(env_file=PROJECT_ROOT / ".env", extra="ignore")

    stripe_platform_home: Home = Path(".stripe-platform")


class Settings(BaseSettings):
    """Every setting of the platform; the names are those of the environment variables, in lower case."""

    model_config = SettingsConfigDict(env_file=PROJECT_ROOT / ".env", extra="ignore", frozen=True)

    stripe_platform_env: Environment = Environment.LOCAL
    stripe_platform_home: Home = Path(".stripe-platform")
    warehouse: WarehouseEngine = WarehouseEngine.DUCKDB

    postgres_host: str = "127.0.0.1"
    postgres_port: Port = 5432
    postgres_database: str = "stripe"
    postgres_user: str = "postgres"
    postgres_password: SecretStr | None = None
    cdc_password: SecretStr | None = None
    # Stands in change events for a large value that did not change: random, so that no row can imitate it.
    toast_placeholder: SecretStr | None = None

    kafka_host: str = "127.0.0.1"
    kafka_port: Port = DEFAULT_KAFKA_PORT
    # Kafka's own, for nobody else: far from KAFKA_PORT unless set, as ports of one stack are often neighbours.
    kafka_controller_port: Port = DEFAULT_KAFKA_PORT + CONTROLLER_PORT_DISTANCE
    connect_host: str = "127.0.0.1"
    connect_port: Port = 8083
    mongodb_host: str = "127.0.0.1"
    mongodb_port: Port = 27017
    mongodb_database: str = "stripe"
    dagster_port: Port = 3000
    dashboard_port: Port = 8501
    api_port: Port = 8000
    # Where the continuous mode serves its metrics.
    metrics_port: Port = 9464

    # Read when WAREHOUSE=snowflake (docs/snowflake.md): the first three have no default.
    snowflake_account: str | None = None
    snowflake_user: str | None = None
    snowflake_private_key_path: Annotated[Path, AfterValidator(_absolute)] | None = None
    snowflake_private_key_passphrase: SecretStr | None = None
    snowflake_database: str = "stripe"
    # Where people find the published marts; they are built in `<schema>_build`.
    snowflake_schema: str = "marts"
    snowflake_warehouse: str = "stripe_transforming"
    # Who runs dbt and publishes, and who loads the change log.
    snowflake_role: str = "stripe_transformer"
    snowflake_loader_role: str = "stripe_loader"
    # Whether marts are published under the policies of deploy/snowflake/05_policies.sql, and to the analysts.
    snowflake_is_governed: bool = True
    # Another address than the account's own: a private link, or an emulator.
    snowflake_url: AnyHttpUrl | None = None

    # Below it nothing is started and no batch is written; a figure or a text like 5GB.
    least_free_bytes: ByteSize = ByteSize(1_000_000_000)
    # For how long Dagster keeps runs with their events and logs: those that ended well, and those that failed.
    kept_run_days: Days = 7
    kept_failed_run_days: Days = 30

    @model_validator(mode="before")
    @classmethod
    def _controller_port_follows_kafka_port(cls, values: dict[str, object]) -> dict[str, object]:
        kafka_port = str(values.get("kafka_port", DEFAULT_KAFKA_PORT))
        if "kafka_controller_port" in values or not kafka_port.isdigit():
            return values
        above = int(kafka_port) + CONTROLLER_PORT_DISTANCE
        below = int(kafka_port) - CONTROLLER_PORT_DISTANCE
        return values | {"kafka_controller_port": above if above <= HIGHEST_PORT else below}

    @property
    def home(self) -> Path:
        """The one folder that holds all state of this stack."""
        return self.stripe_platform_home

    @property
    def secrets(self) -> Path:
        """The folder of generated secrets, a file each, named as the setting."""
        return self.home / "secrets"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of this stack."""
        return self.home / "dagster"

    @property
    def lake(self) -> Path:
        """The folder of the raw change log's Delta tables."""
        return self.home / "lake" / "raw"

    @property
    def warehouse_folder(self) -> Path:
        """The folder of `build.duckdb` and `warehouse.duckdb`."""
        return self.home / "warehouse"

    @property
    def kafka_bootstrap(self) -> str:
        """`host:port` of the broker."""
        return f"{self.kafka_host}:{self.kafka_port}"

    @property
    def connect_url(self) -> str:
        """Base address of Kafka Connect's REST interface."""
        return f"http://{self.connect_host}:{self.connect_port}"

    @cached_property
    def postgres_conninfo(self) -> str:
        """libpq connection string of the owner of the schema, times in UTC."""
        return make_conninfo(
            host=self.postgres_host,
            port=self.postgres_port,
            dbname=self.postgres_database,
            user=self.postgres_user,
            password=self.secret("postgres_password"),
            connect_timeout=10,
            options="-c timezone=UTC",
        )

    def secret(self, name: str) -> str:
        """The value of a secret setting; `MissingSecret` when it is not set anywhere."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise MissingSecret(name, self.secrets)
        return value.get_secret_value()


def without_secrets(settings: Settings, text: str) -> str:
    """The text with *** wherever it held the value of a secret setting."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and (secret := value.get_secret_value()):
            text = text.replace(secret, "***")
    return text


def load_settings() -> Settings:
    """Read the settings afresh: environment beats `.env` beats generated secrets.

    `BadSettings` names every one that is wrong, `UnreadableSecrets` the folder.
    """
    try:
        secrets = _HomeSetting().stripe_platform_home / "secrets"
        return Settings(_secrets_dir=secrets) if secrets.is_dir() else Settings()
    except ValidationError as error:
        # Not as its cause: pydantic's own text quotes values.
        raise BadSettings(error) from None
    except SettingsError as error:
        raise UnreadableSecrets(secrets, error.__cause__ or error) from None
