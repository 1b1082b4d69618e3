"""Databases of their own for the tests that need no change stream."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from psycopg import sql

from stripe_platform.oltp.connection import connect
from stripe_platform.settings import Settings


@pytest.fixture(scope="module")
def new_database(stack: Settings) -> Iterator[Callable[[], Settings]]:
    """Makes empty databases beside the stack's own: nothing written there reaches its change stream."""
    made: list[str] = []

    def make() -> Settings:
        name = f"beside_{uuid.uuid4().hex}"
        with connect(stack, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made.append(name)
        return Settings.model_validate(stack.model_dump() | {"postgres_database": name})

    yield make
    with connect(stack, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
