import io
import logging
from collections.abc import Iterator
from itertools import islice
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stripe_platform.local import logs
from stripe_platform.local.errors import UnknownServer
from stripe_platform.local.logs import FollowedLog, follow, last_lines, missing_logs, show_logs
from stripe_platform.local.server import log_file
from stripe_platform.local.supervisor import LOG_BACKUPS
from stripe_platform.settings import Settings, without_secrets

CANARY = "canary-7f3a"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "logs").mkdir()
    return Settings.model_validate({"stripe_platform_home": tmp_path, "cdc_password": CANARY})


def texts(lines: list[logs.Line]) -> list[str]:
    return [line.text for line in lines]


@pytest.fixture
def rotating(settings: Settings) -> Iterator[logging.Handler]:
    """A log that rotates as the supervisor's do, every few lines."""
    handler = RotatingFileHandler(log_file(settings, "kafka"), maxBytes=40, backupCount=LOG_BACKUPS)
    yield handler
    handler.close()


def write(handler: logging.Handler, *lines: str) -> None:
    for line in lines:
        handler.emit(logging.LogRecord("", logging.INFO, "", 0, line, None, None))


@given(
    files=st.lists(st.lists(st.text("ab ", max_size=5), max_size=4), min_size=1, max_size=LOG_BACKUPS + 1),
    count=st.integers(0, 20),
    block=st.integers(1, 16),
)
def test_the_last_lines_reach_back_over_rotated_files(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], count: int, block: int
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / "logs").mkdir()
    settings = Settings(stripe_platform_home=home)
    path = log_file(settings, "kafka")
    for age, lines in enumerate(reversed(files)):
        name = path.with_name(f"{path.name}.{age}") if age else path
        name.write_text("".join(f"{line}\n" for line in lines))
    written = [line for lines in files for line in lines]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "BLOCK_BYTES", block)
        assert texts(last_lines(settings, "kafka", count)) == (written[-count:] if count else [])


def test_following_gives_every_line_once_over_many_rotations(settings: Settings, rotating: logging.Handler) -> None:
    write(rotating, "before")
    log = FollowedLog(settings, "kafka")
    written, seen = [], []
    for number in range(60):
        write(rotating, f"line {number:03}")
        written.append(f"line {number:03}")
        # Sometimes several files came between two looks.
        if number % 7 == 0:
            seen += texts(log.new_lines())
    seen += texts(log.new_lines())
    assert seen == written
    assert log_file(settings, "kafka").with_suffix(".log.1").exists()


def test_lines_written_and_rotated_away_while_it_looks_are_not_lost(
    settings: Settings, rotating: logging.Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FollowedLog(settings, "kafka")
    look = logs._generations

    def look_late(path: Path) -> list[Path]:
        monkeypatch.setattr(logs, "_generations", look)
        write(rotating, *(f"late {number:03}" for number in range(9)))
        return look(path)

    monkeypatch.setattr(logs, "_generations", look_late)
    assert texts(log.new_lines()) == [f"late {number:03}" for number in range(9)]


def test_following_shows_a_line_when_it_is_whole(settings: Settings) -> None:
    path = log_file(settings, "kafka")
    path.write_text("old\n")
    log = FollowedLog(settings, "kafka")
    with path.open("a") as file:
        file.write("half, canary")
        file.flush()
        assert log.new_lines() == []
        file.write(f"-7f3a and {CANARY}\n")
    assert texts(log.new_lines()) == ["half, *** and ***"]


def test_a_log_that_appears_while_it_is_followed_is_shown_from_its_begin(settings: Settings) -> None:
    coming = follow(settings, ("kafka", "connect"))
    log_file(settings, "connect").write_text("first\n")
    log_file(settings, "kafka").write_text("second\n")
    assert {(line.server, line.text) for line in islice(coming, 2)} == {("connect", "first"), ("kafka", "second")}


def test_no_secret_is_shown(settings: Settings) -> None:
    log_file(settings, "connect").write_text(f"login with {CANARY} failed\n")
    out = io.StringIO()
    show_logs(settings, None, lines=5, following=False, out=out, told=Console(file=io.StringIO()))
    assert "login with *** failed" in out.getvalue()
    assert CANARY not in out.getvalue()
    empty = Settings.model_validate({"stripe_platform_home": settings.home, "cdc_password": ""})
    assert without_secrets(empty, "text") == "text"


def test_lines_of_several_servers_bear_their_names_and_missing_logs_are_said(settings: Settings) -> None:
    log_file(settings, "connect").write_text("one\n")
    log_file(settings, "kafka").write_text("two\n")
    assert missing_logs(settings, ("kafka", "mongodb")) == ("mongodb",)
    out, told = io.StringIO(), io.StringIO()
    show_logs(settings, None, lines=5, following=False, out=out, told=Console(file=told))
    assert out.getvalue().splitlines() == ["kafka       | two", "connect     | one"]
    assert "mongodb has no log yet" in told.getvalue()
    assert "kafka has" not in told.getvalue()
    out = io.StringIO()
    show_logs(settings, "kafka", lines=5, following=False, out=out, told=Console(file=told))
    assert out.getvalue() == "two\n"


def test_an_unknown_server_is_refused_with_those_there_are(settings: Settings) -> None:
    with pytest.raises(UnknownServer, match=r"no server 'kafak'.*postgres, kafka, mongodb, connect, stream, dagster"):
        show_logs(settings, "kafak", lines=5, following=False, out=io.StringIO(), told=Console(file=io.StringIO()))
