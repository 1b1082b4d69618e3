import configparser
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from stripe_platform.local import java, mongodb, postgres
from stripe_platform.local.credentials import with_secrets
from stripe_platform.local.errors import MissingLibrary, MissingProgram
from stripe_platform.local.java import properties
from stripe_platform.local.server import write_private
from stripe_platform.local.stack import EVERY_SERVER
from stripe_platform.local.supervisor import LONGEST_SOCKET_PATH, Supervisor, socket_path
from stripe_platform.settings import Settings


def program(folder: Path, name: str, script: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def test_a_missing_library_is_named_with_its_package(tmp_path: Path) -> None:
    broken = program(
        tmp_path,
        "mongod",
        'echo "mongod: error while loading: libcurl.so.4: cannot open shared object file" >&2; exit 127',
    )
    with pytest.raises(MissingLibrary, match=r"libcurl\.so\.4.*apt-get install libcurl4"):
        mongodb.check_libraries(str(broken))


def test_a_mongod_that_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingProgram, match="put another mongod on PATH"):
        mongodb.check_libraries(str(program(tmp_path, "mongod", "exit 132")))


def test_the_mongod_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = program(tmp_path, "mongod", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mongodb.mongod() == str(on_path)


@pytest.mark.parametrize(("version", "is_taken"), [("21.0.2", True), ("17.0.15", True), ("11.0.22", False)])
def test_the_java_on_path_is_taken_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_taken: bool
) -> None:
    on_path = program(tmp_path, "java", f"echo 'openjdk version \"{version}\" 2025-01-01' >&2")
    monkeypatch.setenv("PATH", str(tmp_path))
    java.java.cache_clear()
    try:
        assert (java.java() == str(on_path)) is is_taken
        assert os.access(java.java(), os.X_OK)
    finally:
        java.java.cache_clear()


def test_java_reads_a_path_with_odd_letters_as_it_is() -> None:
    assert properties({"log.dirs": "/home/zoë\\x"}) == "log.dirs=/home/zo\\u00eb\\\\x\n"


def test_a_private_file_is_closed_to_others_even_when_it_was_open(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)


def test_a_closed_folder_on_the_way_is_noticed(tmp_path: Path) -> None:
    stranger = pwd.struct_passwd(("stranger", "x", os.getuid() + 1, 0, "", "/", ""))
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not postgres.can_reach(inner, stranger)
    assert postgres.can_reach(Path("/"), stranger)


def test_a_pid_file_whose_number_belongs_to_another_process_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "postmaster.pid"
    postgres.drop_stale_pid_file(tmp_path)
    file.write_text(f"{os.getpid()}\n{tmp_path}\n")
    postgres.drop_stale_pid_file(tmp_path)
    assert not file.exists()


def test_the_pid_file_of_a_running_postgresql_stays(tmp_path: Path) -> None:
    sleeper = tmp_path / "postgres"
    shutil.copy(shutil.which("sleep") or "", sleeper)
    file = tmp_path / "postmaster.pid"
    with subprocess.Popen([sleeper, "60"]) as running:
        file.write_text(f"{running.pid}\n{tmp_path}\n")
        postgres.drop_stale_pid_file(tmp_path)
        running.kill()
    assert file.exists()


def test_a_short_home_holds_its_socket() -> None:
    home = Path("/srv/platform")
    assert socket_path(home) == home / "run" / "supervisor.sock"


def test_long_homes_have_short_sockets_of_their_own() -> None:
    homes = [Path(f"/srv/{'x' * 100}/{name}") for name in ("one", "two")]
    paths = {socket_path(home) for home in homes}
    assert len(paths) == len(homes)
    assert all(len(str(path)) <= LONGEST_SOCKET_PATH for path in paths)


def test_the_supervisor_gives_each_program_its_own_secrets_and_a_log(tmp_path: Path) -> None:
    settings = with_secrets(Settings(stripe_platform_home=tmp_path / "100%"))
    text = Supervisor(settings).render(server.program(settings) for server in EVERY_SERVER)
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(text)
    with_password = [name for name in parser.sections() if settings.secret("cdc_password") in str(parser.items(name))]
    assert with_password == ["program:connect", "program:stream", "program:dagster"]
    for server in EVERY_SERVER:
        section = parser[f"program:{server.name}"]
        assert section["stdout_logfile"] == f"{tmp_path}/100%%/logs/{server.name}.log"
        assert (section["stopasgroup"], section["killasgroup"], section["autorestart"]) == ("true",) * 3
    assert settings.secret("postgres_password") not in str(parser.items("program:postgres"))
