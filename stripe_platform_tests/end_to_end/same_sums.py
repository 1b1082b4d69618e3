"""A comparison of the marts with PostgreSQL."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SameSums:
    """Two queries that give the same rows: one of the published marts, one of PostgreSQL."""

    what: str
    mart: str
    oltp: str
