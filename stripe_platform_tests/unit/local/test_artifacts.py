import hashlib
import json
import multiprocessing
import re
from pathlib import Path

import pytest

from stripe_platform.local import artifacts, pin
from stripe_platform.local.artifacts import Artifact, ensure_bundle, pinned
from stripe_platform.local.errors import ArtifactError, ChecksumMismatch, UnsupportedMachine

COORDINATES = ("org.example:first:1.0", "org.example:second:2.0")


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    file = tmp_path / "artifacts.lock.json"
    checksums = {c: hashlib.sha256(c.encode()).hexdigest() for c in COORDINATES}
    file.write_text(json.dumps({"tools": checksums}))
    return file


def write_coordinates(artifact: Artifact, repository: Path) -> Path:
    """Stands in for the network: the content of a file is its coordinates."""
    repository.mkdir(parents=True, exist_ok=True)
    file = repository / artifact.file_name
    file.write_text(artifact.coordinates)
    return file


def write_coordinates_and_tell(artifact: Artifact, repository: Path) -> Path:
    with (repository.parent.parent.parent / "fetched.log").open("a") as log:
        log.write(f"{artifact.coordinates}\n")
    return write_coordinates(artifact, repository)


def never(artifact: Artifact, repository: Path) -> Path:
    pytest.fail(f"{artifact.coordinates} was fetched")


def ensure(cache: Path, lock_file: Path) -> None:
    ensure_bundle("tools", cache, lock_file=lock_file, fetch=write_coordinates_and_tell)


def test_a_bundle_is_a_folder_of_its_files(tmp_path: Path, lock_file: Path) -> None:
    folder = ensure_bundle("tools", tmp_path / "cache", inside="plugin", lock_file=lock_file, fetch=write_coordinates)
    files = {file.name: file.read_text() for file in (folder / "plugin").iterdir()}
    assert files == {"first-1.0.jar": COORDINATES[0], "second-2.0.jar": COORDINATES[1]}


def test_a_bundle_in_the_cache_is_not_fetched_again(tmp_path: Path, lock_file: Path) -> None:
    first = ensure_bundle("tools", tmp_path / "cache", lock_file=lock_file, fetch=write_coordinates)
    assert ensure_bundle("tools", tmp_path / "cache", lock_file=lock_file, fetch=never) == first


def test_other_pins_make_another_folder(tmp_path: Path, lock_file: Path) -> None:
    first = ensure_bundle("tools", tmp_path / "cache", lock_file=lock_file, fetch=write_coordinates)
    lock_file.write_text(json.dumps({"tools": {COORDINATES[0]: pinned("tools", lock_file)[0].sha256}}))
    assert ensure_bundle("tools", tmp_path / "cache", lock_file=lock_file, fetch=write_coordinates) != first


def test_a_changed_file_is_named_and_leaves_the_cache_empty(tmp_path: Path, lock_file: Path) -> None:
    def changed(artifact: Artifact, repository: Path) -> Path:
        file = write_coordinates(artifact, repository)
        if artifact.coordinates == COORDINATES[1]:
            file.write_text("something else")
        return file

    cache = tmp_path / "cache"
    with pytest.raises(ChecksumMismatch, match=re.escape(COORDINATES[1])):
        ensure_bundle("tools", cache, lock_file=lock_file, fetch=changed)
    assert [entry.name for entry in cache.iterdir() if entry.is_dir()] == []


def test_a_file_that_cannot_be_fetched_is_named_with_the_remedy(tmp_path: Path, lock_file: Path) -> None:
    def unreachable(artifact: Artifact, repository: Path) -> Path:
        raise ArtifactError(artifact.coordinates, "it cannot be fetched")

    with pytest.raises(ArtifactError, match=r"org\.example:first:1\.0.*check the network"):
        ensure_bundle("tools", tmp_path, lock_file=lock_file, fetch=unreachable)


def test_two_processes_at_once_fetch_once(tmp_path: Path, lock_file: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=ensure, args=(tmp_path / "cache", lock_file)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert sorted((tmp_path / "fetched.log").read_text().split()) == sorted(COORDINATES)


def test_the_lock_file_holds_the_versions_that_are_pinned() -> None:
    for bundle, wanted in pin.BUNDLES.items():
        locked = {artifact.coordinates for artifact in pinned(bundle)}
        assert set(wanted) <= locked
        assert bundle in artifacts.BUNDLES


def test_every_file_of_a_bundle_is_there_in_one_version() -> None:
    for bundle in artifacts.BUNDLES:
        names = [artifact.coordinates.rsplit(":", 1)[0] for artifact in pinned(bundle)]
        assert len(names) == len(set(names))


def test_nothing_of_connect_lies_beside_debezium() -> None:
    given = [a.coordinates for a in pinned("debezium") if a.coordinates.startswith(pin.GIVEN_BY_CONNECT)]
    assert given == []


def test_another_processor_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnsupportedMachine, match=r"Linux aarch64.*STRIPE_PLATFORM_ENV=docker"):
        artifacts.fill_cache()


def test_the_cache_of_root_is_one_that_others_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert artifacts.cache_folder() == Path("/var/cache/stripe-platform")


def test_the_cache_of_a_user_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert artifacts.cache_folder() == Path("/home/ada/.cache/stripe-platform")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert artifacts.cache_folder() == Path("/scratch/stripe-platform")
