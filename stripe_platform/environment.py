"""The closed set of environments the platform runs in."""

from enum import StrEnum


class Environment(StrEnum):
    """Where the platform runs; every map over environments names all of them, and there is no fallback."""

    LOCAL = "local"
    DOCKER = "docker"
    CLOUD = "cloud"
