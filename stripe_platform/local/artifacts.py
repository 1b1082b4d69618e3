"""The servers' jars and archives: pinned, checked, kept in a per-user cache; no network once it is filled.

`artifacts.lock.json` names every file with its SHA-256; `python -m stripe_platform.local.pin` writes it anew.
"""

import hashlib
import json
import os
import platform
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from filelock import FileLock
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from stripe_platform.local.errors import ArtifactError, ChecksumMismatch, UnsupportedMachine

LOCK_FILE = Path(__file__).with_name("artifacts.lock.json")
# Another process may be filling the cache over a slow line.
FILL_TIMEOUT_S = 900
DOWNLOAD_TIMEOUT_S = 60
PARALLEL_DOWNLOADS = 8


class Arrangement(TypedDict, total=False):
    """How the files of a bundle lie in its folder."""

    inside: str
    unpack: bool


BUNDLES: Mapping[str, Arrangement] = {
    "kafka": {},
    "debezium": {"inside": "debezium-connector-postgres"},
    "postgresql": {"unpack": True},
}

Fetch = Callable[["Artifact", Path], Path]


@dataclass(frozen=True)
class Artifact:
    """One file of Maven Central, `group:name:version`, and the SHA-256 it must have."""

    coordinates: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name it has in the repository and in the cache."""
        _, name, version = self.coordinates.split(":")
        return f"{name}-{version}.jar"


def pinned(bundle: str, lock_file: Path = LOCK_FILE) -> tuple[Artifact, ...]:
    """The files of one bundle (`kafka`, `debezium`, `postgresql`) as the lock file names them."""
    bundles: Mapping[str, Mapping[str, str]] = json.loads(lock_file.read_text())
    return tuple(Artifact(coordinates, sha) for coordinates, sha in bundles[bundle].items())


def cache_folder() -> Path:
    """Where fetched files are kept: `XDG_CACHE_HOME`, else the user's cache.

    Root's is under /var/cache, for PostgreSQL runs as another user, who cannot look into /root.
    """
    configured = os.environ.get("XDG_CACHE_HOME")
    if configured:
        return Path(configured).absolute() / "stripe-platform"
    if os.geteuid() == 0:
        return Path("/var/cache/stripe-platform")
    return Path.home() / ".cache" / "stripe-platform"


def kafka_class_path() -> str:
    """The class path of the broker and of Kafka Connect, which share one folder as in Kafka's own package."""
    return f"{_bundle_folder('kafka')}/*"


def plugin_path() -> Path:
    """The folder for Connect's `plugin.path`: Debezium and its dependencies, nothing of Connect's own."""
    return _bundle_folder("debezium")


def postgres_folder() -> Path:
    """The folder of PostgreSQL's `bin`, `lib` and `share`."""
    return _bundle_folder("postgresql")


def is_cache_complete() -> bool:
    """Whether a start needs no network."""
    return all(_bundle_folder(bundle).is_dir() for bundle in BUNDLES)


def fill_cache() -> None:
    """Have every bundle in the cache; `ArtifactError` names what was not to be had, or not as pinned."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UnsupportedMachine(platform.system(), platform.machine())
    cache = cache_folder()
    with ThreadPoolExecutor(len(BUNDLES)) as pool:
        list(pool.map(lambda bundle: ensure_bundle(bundle, cache, **BUNDLES[bundle]), BUNDLES))


def ensure_bundle(
    bundle: str,
    cache: Path,
    *,
    inside: str = "",
    unpack: bool = False,
    lock_file: Path = LOCK_FILE,
    fetch: Fetch | None = None,
) -> Path:
    """The bundle's folder in the cache, fetched and checked if it is not there yet.

    It appears whole or not at all, also when several processes ask at once. Jars are put in the subfolder
    `inside`; with `unpack` the archive within each jar is unpacked in place of it.
    """
    folder = _bundle_folder(bundle, cache, lock_file)
    if folder.is_dir():
        return folder
    # Readable for all whatever the umask: the unprivileged user runs binaries from here.
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    with FileLock(cache / f"{folder.name}.lock", timeout=FILL_TIMEOUT_S):
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as scratch:
            files = _fetch_all(pinned(bundle, lock_file), Path(scratch) / "repository", fetch or _from_maven_central)
            made = Path(scratch) / folder.name
            target = made / inside
            target.mkdir(parents=True)
            for file in files:
                if unpack:
                    _unpack(file, target)
                else:
                    shutil.move(file, target / file.name)
            made.chmod(0o755)
            made.rename(folder)
    return folder


def _bundle_folder(bundle: str, cache: Path | None = None, lock_file: Path = LOCK_FILE) -> Path:
    # The name changes with the pins, so that an upgrade fetches anew and a downgrade finds the old files.
    pins = "".join(f"{a.coordinates}{a.sha256}" for a in pinned(bundle, lock_file))
    return (cache or cache_folder()) / f"{bundle}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"


def _fetch_all(artifacts: tuple[Artifact, ...], repository: Path, fetch: Fetch) -> list[Path]:
    def fetch_checked(artifact: Artifact) -> Path:
        file = fetch(artifact, repository)
        with file.open("rb") as content:
            actual = hashlib.file_digest(content, "sha256").hexdigest()
        if actual != artifact.sha256:
            raise ChecksumMismatch(artifact.coordinates, artifact.sha256, actual)
        return file

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        return list(pool.map(fetch_checked, artifacts))


def _from_maven_central(artifact: Artifact, repository: Path) -> Path:
    # Needed for the first start only.
    import requests  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    context = MavenContext(repo_cache=repository, timeout=DOWNLOAD_TIMEOUT_S)
    group, name, version = artifact.coordinates.split(":")

    @retry(
        retry=retry_if_exception_type((requests.RequestException, RuntimeError)),
        stop=stop_after_attempt(4),
        wait=wait_exponential(max=10),
        reraise=True,
    )
    def download() -> Path:
        wanted = context.project(group, name).at_version(version).artifact()
        # jgo takes a file that a broken download left behind for a whole one.
        if wanted.cached_path:
            wanted.cached_path.unlink(missing_ok=True)
        return Path(wanted.resolve())

    try:
        return download()
    except (requests.RequestException, RuntimeError) as error:
        raise ArtifactError(artifact.coordinates, f"it cannot be fetched ({type(error).__name__})") from error


def _unpack(jar: Path, target: Path) -> None:
    with zipfile.ZipFile(jar) as outer:
        archive = next(name for name in outer.namelist() if name.endswith(".txz"))
        with outer.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|xz") as tar:
            # The first releases of Python 3.11 have no filters.
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            tar.extractall(target)  # noqa: S202 - its checksum has matched
