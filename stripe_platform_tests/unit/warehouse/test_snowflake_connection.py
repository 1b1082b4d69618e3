from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from dagster._core.remote_representation.external_data import RepositorySnap
from dbt_common.constants import SECRET_ENV_PREFIX
from pydantic import SecretStr
from snowflake.connector.errors import ProgrammingError

from stripe_platform.environment import Environment
from stripe_platform.resources import WAREHOUSES, resources_for
from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse.engines import ENGINES
from stripe_platform.warehouse.snowflake.connection import (
    KeyNotOpened,
    NoPrivateKey,
    SnowflakeNotConfigured,
    SnowflakeRefused,
    connection_arguments,
    profile_variables,
)
from stripe_platform.warehouse.snowflake.resource import PASSPHRASE, snowflake_resource


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        stripe_platform_home=tmp_path,
        warehouse=WarehouseEngine.SNOWFLAKE,
        snowflake_account="org-account",
        snowflake_user="somebody",
        snowflake_private_key_path=key_file(tmp_path / "key.p8", NoEncryption()),
    )


def key_file(path: Path, encryption: KeySerializationEncryption) -> Path:
    key = generate_private_key(65537, 2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return path


def test_every_setting_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    settings = Settings(stripe_platform_home=tmp_path, warehouse=WarehouseEngine.SNOWFLAKE, snowflake_user="somebody")
    with pytest.raises(SnowflakeNotConfigured, match="needs SNOWFLAKE_ACCOUNT, SNOWFLAKE_PRIVATE_KEY_PATH: set"):
        resources_for(settings)


def test_a_key_that_is_not_there_is_told_with_its_path(settings: Settings, tmp_path: Path) -> None:
    elsewhere = settings.model_copy(update={"snowflake_private_key_path": tmp_path / "nowhere.p8"})
    with pytest.raises(NoPrivateKey, match=r"nowhere\.p8"):
        connection_arguments(elsewhere)


def test_a_key_that_its_passphrase_does_not_open_is_told_without_the_passphrase(
    settings: Settings, tmp_path: Path
) -> None:
    encrypted = key_file(tmp_path / "encrypted.p8", BestAvailableEncryption(b"right"))

    def opened(path: Path, passphrase: str | None) -> dict[str, Any]:
        secret = SecretStr(passphrase) if passphrase else None
        key = {"snowflake_private_key_path": path, "snowflake_private_key_passphrase": secret}
        return connection_arguments(settings.model_copy(update=key))

    assert opened(encrypted, "right")["private_key_file_pwd"] == "right"
    for path in (encrypted, tmp_path / "key.p8"):
        with pytest.raises(KeyNotOpened, match=rf"SNOWFLAKE_PRIVATE_KEY_PASSPHRASE does not open {path}") as told:
            opened(path, "mistyped")
        assert "mistyped" not in str(told.value)
    with pytest.raises(KeyNotOpened, match=r"encrypted\.p8 does not open without a passphrase"):
        opened(encrypted, None)


def test_dbt_gets_the_passphrase_under_a_name_whose_value_it_takes_out_of_its_logs(
    settings: Settings, tmp_path: Path
) -> None:
    encrypted = key_file(tmp_path / "encrypted.p8", BestAvailableEncryption(b"right"))
    key = {"snowflake_private_key_path": encrypted, "snowflake_private_key_passphrase": SecretStr("right")}
    variables = profile_variables(settings.model_copy(update=key))
    assert variables[f"{SECRET_ENV_PREFIX}_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"] == "right"


def test_the_account_is_reached_at_its_own_address_unless_another_is_set(settings: Settings) -> None:
    assert "host" not in connection_arguments(settings)
    assert "SNOWFLAKE_HOST" not in profile_variables(settings)
    elsewhere = Settings.model_validate(settings.model_dump() | {"snowflake_url": "http://localhost:1234"})
    arguments = connection_arguments(elsewhere)
    assert (arguments["host"], arguments["port"], arguments["protocol"]) == ("localhost", 1234, "http")
    assert profile_variables(elsewhere)["SNOWFLAKE_PORT"] == "1234"


def test_a_failed_statement_is_told_without_snowflakes_words_which_may_quote_values() -> None:
    cause = ProgrammingError("Numeric value 'jane@example.com' is not recognized", errno=100038, sqlstate="22018")
    text = str(SnowflakeRefused("copy the changes of charges", cause))
    assert "jane" not in text
    assert "copy the changes of charges (error 100038" in text


def test_every_environment_names_its_engines_and_every_engine_is_there() -> None:
    assert set(WAREHOUSES) == set(Environment)
    assert all(WarehouseEngine.SNOWFLAKE in engines for engines in WAREHOUSES.values())
    assert set(ENGINES) == set(WarehouseEngine)


def test_dagster_is_given_the_resource_of_snowflake_only_where_it_is_the_warehouse(settings: Settings) -> None:
    assert "snowflake" in resources_for(settings)
    assert "snowflake" not in resources_for(settings.model_copy(update={"warehouse": WarehouseEngine.DUCKDB}))


def test_what_dagster_shows_of_the_resource_has_no_passphrase_and_the_resource_has_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, "of another key")
    encrypted = key_file(tmp_path / "encrypted.p8", BestAvailableEncryption(b"kept to itself"))
    key = {"snowflake_private_key_path": encrypted, "snowflake_private_key_passphrase": SecretStr("kept to itself")}
    resource = snowflake_resource(settings.model_copy(update=key))
    repository = dg.Definitions(resources={"snowflake": resource}).get_repository_def()
    shown = dg.serialize_value(RepositorySnap.from_def(repository))
    assert "encrypted.p8" in shown
    assert "kept to itself" not in shown
    assert resource.process_config_and_initialize().private_key_password == "kept to itself"
