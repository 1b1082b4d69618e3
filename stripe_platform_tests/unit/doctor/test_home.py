from dataclasses import replace
from pathlib import Path

import pytest

from stripe_platform.doctor.finding import State
from stripe_platform.doctor.home import Home, Secrets, judge_home, judge_secrets, look_at_home, look_at_secrets
from stripe_platform.local import credentials
from stripe_platform.local.credentials import with_secrets
from stripe_platform.settings import Settings

OK, WARNING, PROBLEM = State.OK, State.WARNING, State.PROBLEM
USER = 1000
FINE = Home(Path("/srv/home"), owner=USER)


@pytest.mark.parametrize(
    ("home", "state", "part"),
    [
        (FINE, OK, "/srv/home"),
        (replace(FINE, owner=None), OK, "first start"),
        (replace(FINE, owner=0), PROBLEM, "the id 0"),
        (replace(FINE, is_writable=False), PROBLEM, "may not be written"),
        (replace(FINE, is_half_reset=True), PROBLEM, "reset"),
        (replace(FINE, open_folders=["lake"]), WARNING, "lake"),
    ],
    ids=["fine", "absent", "foreign", "closed", "half reset", "open to others"],
)
def test_the_folder_belongs_to_its_user_alone(home: Home, state: State, part: str) -> None:
    finding = judge_home(home, USER)
    assert (finding.state, part in finding.found) == (state, True)
    assert (finding.remedy is None) is (state is OK)


def test_a_folder_that_others_may_enter_is_seen(tmp_path: Path) -> None:
    settings = Settings(stripe_platform_home=tmp_path)
    (tmp_path / "lake").mkdir(mode=0o700)
    assert look_at_home(settings).state is OK
    (tmp_path / "lake").chmod(0o750)
    assert look_at_home(settings).state is WARNING


SAFE = Secrets(Path("/srv/home/secrets"))


@pytest.mark.parametrize(
    ("secrets", "state"),
    [
        (SAFE, OK),
        (replace(SAFE, missing=["cdc_password"]), OK),
        (replace(SAFE, missing=["cdc_password"], has_data=True), PROBLEM),
        (replace(SAFE, open_paths=[SAFE.folder]), PROBLEM),
    ],
    ids=["set", "to be made", "lost", "open to others"],
)
def test_lost_or_open_secrets_are_a_problem(secrets: Secrets, state: State) -> None:
    finding = judge_secrets(secrets)
    assert finding.state is state
    assert (finding.remedy is None) is (state is OK)


def test_secrets_are_judged_by_their_files_and_never_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in credentials.NAMES:
        monkeypatch.delenv(name.upper(), raising=False)
    settings = with_secrets(Settings(stripe_platform_home=tmp_path, _env_file=None))
    assert look_at_secrets(settings).state is OK
    (settings.secrets / "cdc_password").chmod(0o640)
    finding = look_at_secrets(settings)
    assert finding.state is PROBLEM
    assert str(settings.secrets / "cdc_password") in finding.found
    for name in credentials.NAMES:
        assert settings.secret(name) not in finding.model_dump_json()
    (tmp_path / "postgres").mkdir()
    lost = look_at_secrets(Settings(stripe_platform_home=tmp_path / ".", _env_file=None))
    assert lost.state is PROBLEM
