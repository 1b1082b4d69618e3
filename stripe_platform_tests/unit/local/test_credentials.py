from pathlib import Path

import pytest

from stripe_platform.local.credentials import NAMES, with_secrets
from stripe_platform.local.errors import BadSecret
from stripe_platform.settings import Settings


def test_secrets_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    settings = Settings(stripe_platform_home=tmp_path)
    first = with_secrets(settings)
    assert [with_secrets(settings).secret(name) for name in NAMES] == [first.secret(name) for name in NAMES]
    assert len({first.secret(name) for name in NAMES}) == len(NAMES)
    assert settings.secrets.stat().st_mode & 0o777 == 0o700
    for name in NAMES:
        assert (settings.secrets / name).stat().st_mode & 0o777 == 0o600


def test_settings_read_afresh_find_the_secrets(tmp_path: Path) -> None:
    made = with_secrets(Settings(stripe_platform_home=tmp_path))
    read = Settings(_secrets_dir=made.secrets, stripe_platform_home=tmp_path)
    assert [read.secret(name) for name in NAMES] == [made.secret(name) for name in NAMES]


def test_a_secret_that_is_set_is_kept_and_not_written_down(tmp_path: Path) -> None:
    settings = Settings.model_validate({"stripe_platform_home": tmp_path, "cdc_password": "chosen"})
    assert with_secrets(settings).secret("cdc_password") == "chosen"
    assert not (settings.secrets / "cdc_password").exists()


@pytest.mark.parametrize("value", ['quo"te', "back\\slash", "bl ank", "line\nbreak"])
def test_a_secret_that_cannot_be_handed_over_is_refused_without_being_shown(tmp_path: Path, value: str) -> None:
    settings = Settings.model_validate({"stripe_platform_home": tmp_path, "cdc_password": value})
    with pytest.raises(BadSecret, match="CDC_PASSWORD") as error:
        with_secrets(settings)
    assert value not in str(error.value)
