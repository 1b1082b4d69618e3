"""What the platform makes in a stack's folder, and what of these names may lie there before it ever was one."""

import os
from collections.abc import Mapping
from pathlib import Path

from stripe_platform.local.credentials import NAMES as SECRET_NAMES

# All that the platform makes in a home, by what it holds. What else lies there is somebody's, and stays.
CONTENTS = {
    "postgres": "PostgreSQL's data",
    "kafka": "Kafka's topics",
    "mongodb": "MongoDB's data",
    "lake": "the lake",
    "warehouse": "the warehouse",
    "dagster": "Dagster's history",
    "secrets": "the generated secrets",
    "sample_payments.parquet": "the sample",
    **dict.fromkeys(("dbt", "cuts", "logs", "tmp"), "logs and scratch files"),
}

# What is there without a start: loading the graph makes the first two, and secrets may be put there by hand.
WITHOUT_A_START: Mapping[str, frozenset[str]] = {
    "dbt": frozenset({"target", "target.lock", "runs"}),
    "dagster": frozenset({"dagster.yaml", "history", "schedules", "storage", "logs", ".nux", ".telemetry"}),
    "secrets": frozenset(SECRET_NAMES),
}


def somebody_s(home: Path) -> tuple[str, ...]:
    """Entries of a folder that never was a stack's which a reset would take for the platform's.

    Links and folders without a file do no harm: of these a reset removes nothing else.
    """
    return tuple(name for name in CONTENTS if os.path.lexists(home / name) and not _is_harmless(home / name))


def _is_harmless(path: Path) -> bool:
    if path.is_symlink():
        return True
    if not path.is_dir():
        return False
    is_ours = set(os.listdir(path)) <= WITHOUT_A_START.get(path.name, frozenset())
    return is_ours or not any(files for _, _, files in os.walk(path))
