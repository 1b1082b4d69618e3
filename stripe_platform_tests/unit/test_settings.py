import errno
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from stripe_platform.settings import (
    PROJECT_ROOT,
    BadSettings,
    MissingSecret,
    Settings,
    UnreadableSecrets,
    load_settings,
)


def test_the_environment_beats_the_dotenv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("POSTGRES_PORT=6001\nKAFKA_PORT=6002\n")
    monkeypatch.setenv("POSTGRES_PORT", "7001")
    monkeypatch.delenv("KAFKA_PORT", raising=False)
    settings = Settings(_env_file=dotenv)
    assert (settings.postgres_port, settings.kafka_port) == (7001, 6002)


def test_the_example_file_leaves_the_environment_in_force_when_dagster_reads_it_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster._core.secrets.env_file import get_env_var_dict

    (tmp_path / ".env").write_text((PROJECT_ROOT / ".env.example").read_text())
    monkeypatch.setenv("POSTGRES_PORT", "7001")
    monkeypatch.delenv("KAFKA_PORT", raising=False)
    read = get_env_var_dict(str(tmp_path))
    assert (read["POSTGRES_PORT"], read["KAFKA_PORT"]) == ("7001", "9092")


def test_the_example_file_names_every_port_and_nothing_unknown() -> None:
    lines = [line for line in (PROJECT_ROOT / ".env.example").read_text().splitlines() if "=" in line]
    named = {line.split("=", 1)[0].lower() for line in lines if not line.startswith("#")}
    derived = {"kafka_controller_port"}
    assert {name for name in Settings.model_fields if name.endswith("_port")} - derived <= named
    assert named - {"dagster_home"} <= set(Settings.model_fields)


@pytest.mark.parametrize(("kafka", "controller"), [(9092, 19092), (21001, 31001), (60000, 50000)])
def test_the_controllers_port_follows_kafkas_but_stays_away_from_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, kafka: int, controller: int
) -> None:
    monkeypatch.setenv("KAFKA_PORT", str(kafka))
    monkeypatch.delenv("KAFKA_CONTROLLER_PORT", raising=False)
    assert Settings(_env_file=None).kafka_controller_port == controller
    monkeypatch.setenv("KAFKA_CONTROLLER_PORT", "9093")
    assert Settings(_env_file=None).kafka_controller_port == 9093


def test_every_bad_setting_is_named_with_what_it_has_to_be_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_PLATFORM_ENV", "staging")
    monkeypatch.setenv("WAREHOUSE", "sqlite")
    monkeypatch.setenv("POSTGRES_PORT", "abc")
    monkeypatch.setenv("KAFKA_PORT", "70000")
    with pytest.raises(BadSettings) as refusal:
        load_settings()
    for part in (
        "STRIPE_PLATFORM_ENV is 'staging': should be 'local', 'docker' or 'cloud'",
        "WAREHOUSE is 'sqlite': should be 'duckdb'",
        "POSTGRES_PORT is 'abc': should be a valid integer",
        "KAFKA_PORT is '70000': should be less than or equal to 65535",
        str(PROJECT_ROOT / ".env"),
    ):
        assert part in str(refusal.value)


def test_a_home_that_was_not_filled_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_PLATFORM_HOME", "@ROOT@/.stripe-platform")
    with pytest.raises(BadSettings, match=r"STRIPE_PLATFORM_HOME is .*: replace @ROOT@ in \.env"):
        load_settings()


def test_a_bad_secret_is_named_without_its_value() -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate({"cdc_password": 271828, "postgres_port": "abc"})
    told = str(BadSettings(refusal.value))
    assert "CDC_PASSWORD should be a valid string" in told
    assert "271828" not in told


def test_secrets_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_PLATFORM_HOME", str(tmp_path))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "cdc_password").touch()
    is_file = Path.is_file

    def is_file_of_another_user(path: Path) -> bool:
        if path.parent.name == "secrets":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", is_file_of_another_user)
    with pytest.raises(UnreadableSecrets, match=r"secrets cannot be read \(Permission denied\): go on as the user"):
        load_settings()


def test_generated_secrets_are_read_from_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_PLATFORM_HOME", str(tmp_path))
    monkeypatch.delenv("CDC_PASSWORD", raising=False)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "cdc_password").write_text("s3cret-value")
    settings = load_settings()
    assert settings.secret("cdc_password") == "s3cret-value"
    assert "s3cret-value" not in repr(settings)


def test_a_missing_secret_names_itself_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTGRES_PASSWORD", raising=False)
    with pytest.raises(MissingSecret, match="POSTGRES_PASSWORD is not set: `make up`"):
        Settings(stripe_platform_home=tmp_path, _env_file=None).secret("postgres_password")
