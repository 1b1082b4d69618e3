"""What a command tells is shown as it is, whatever it quotes; a bad setting is told like any error."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stripe_platform.cli import app

# To rich, an end tag without a beginning, which it refuses, and a picture.
QUOTED = "[/foo]:key:"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STRIPE_PLATFORM_HOME", str(tmp_path / f"home{QUOTED[1:]}"))
    return tmp_path


@pytest.mark.parametrize(
    "command", [["logs", QUOTED], ["import-payments", f"{QUOTED}.csv"]], ids=["an argument", "a file, with progress"]
)
def test_an_error_is_shown_with_the_brackets_it_quotes(command: list[str]) -> None:
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 1
    assert QUOTED in answer.stderr.partition("error: ")[2]


def test_a_message_is_shown_with_the_brackets_of_a_folder(home: Path) -> None:
    answer = CliRunner().invoke(app, ["logs", "kafka"])
    assert answer.exit_code == 0
    assert f"has not run in {home}/home{QUOTED[1:]}" in answer.stderr


@pytest.mark.parametrize("command", [["doctor"], ["status", "--json"], ["down"]], ids=lambda words: words[0])
def test_a_bad_setting_ends_every_command_with_its_name_and_no_traceback(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PORT", "abc")
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: POSTGRES_PORT is 'abc': should be a valid integer")
    assert answer.stderr.count("\n") == 1
