"""Every kind of change, from PostgreSQL to staging, compared row by row."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from stripe_platform.cdc.connector import register
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.settings import Settings

TRANSACTIONS = 200
OPEN_AT_ONCE = 40
# Larger than a page's share, so that PostgreSQL stores it apart and leaves it out of an update that keeps it.
LARGE_BYTES = 20_000
MERCHANT = (
    "INSERT INTO merchants (business_name, mcc, country, default_currency, metadata) "
    "VALUES (%s, '5411', 'DE', 'eur', %s) RETURNING id"
)
Stage = Callable[[Settings], Callable[[str], list[tuple[object, ...]]]]
COMPARED = "id, business_name, mcc, charges_enabled, metadata"


@pytest.fixture(scope="module")
def settings(new_stack: Callable[[], Settings]) -> Settings:
    bare = new_stack()
    migrate(bare)
    return bare


@pytest.fixture(scope="module")
def first_start(settings: Settings) -> Settings:
    """A connector whose first start meets 40 open transactions at any moment, ending in random order."""
    chance = random.Random(7)  # noqa: S311 - repeatable, not secret
    with connect(settings) as postgres:
        free = [_merchant(postgres, f"old {number}") for number in range(2 * OPEN_AT_ONCE)]
        postgres.commit()
    open_ones: list[tuple[psycopg.Connection, object]] = []
    begun = 0
    with ThreadPoolExecutor(1) as pool:
        registered = pool.submit(register, settings)
        while open_ones or begun < TRANSACTIONS or not registered.done():
            is_last = begun >= TRANSACTIONS and registered.done()
            if len(open_ones) < OPEN_AT_ONCE and not is_last:
                # Nobody else may hold the row, or this one thread would wait for itself.
                merchant = free.pop(chance.randrange(len(free)))
                open_ones.append((_begin(settings, merchant, begun), merchant))
                begun += 1
                continue
            transaction, merchant = open_ones.pop(chance.randrange(len(open_ones)))
            transaction.rollback() if chance.random() < 0.1 else transaction.commit()
            transaction.close()
            free.append(merchant)
        registered.result()
    return settings


def _merchant(postgres: psycopg.Connection, name: str, metadata: str = "{}") -> object:
    row = postgres.execute(MERCHANT, (name, metadata)).fetchone()
    assert row is not None
    return row[0]


def _begin(settings: Settings, merchant: object, number: int) -> psycopg.Connection:
    """An open transaction that changes one row several times and adds another."""
    transaction = connect(settings)
    transaction.execute("UPDATE merchants SET business_name = %s WHERE id = %s", (f"first {number}", merchant))
    _merchant(transaction, f"new {number}")
    if number % 7 == 0:
        transaction.execute("DELETE FROM merchants WHERE id = %s", (merchant,))
    else:
        transaction.execute("UPDATE merchants SET mcc = '5999' WHERE id = %s", (merchant,))
    return transaction


def _assert_staging_is_postgres(settings: Settings, staged: Stage) -> None:
    query = staged(settings)
    found: list[Any] = query(
        "select merchant_id, business_name, mcc, charges_enabled, metadata from staging.stg_merchants"
    )
    with connect(settings) as postgres:
        rows = postgres.execute(f"SELECT {COMPARED} FROM merchants".encode()).fetchall()
    assert {key: (*row, json.loads(metadata)) for key, *row, metadata in found} == {
        str(key): (*row, metadata) for key, *row, metadata in rows
    }
    assert len(found) == len(rows)


def test_transactions_open_across_the_first_start_end_as_in_postgres(first_start: Settings, staged: Stage) -> None:
    _assert_staging_is_postgres(first_start, staged)


def test_updates_deletes_and_large_values_that_did_not_change_end_as_in_postgres(
    first_start: Settings, staged: Stage
) -> None:
    large = json.dumps({"note": random.Random(1).randbytes(LARGE_BYTES).hex()})  # noqa: S311
    with connect(first_start) as postgres:
        keeps, changes, empties, leaves = (
            _merchant(postgres, name, large) for name in ("keeps", "changes", "empties", "leaves")
        )
        postgres.commit()
        postgres.execute("UPDATE merchants SET charges_enabled = false WHERE id = %s", (keeps,))
        postgres.commit()
        postgres.execute("UPDATE merchants SET mcc = '5812' WHERE id = %s", (keeps,))
        postgres.execute('UPDATE merchants SET metadata = \'{"note": "new"}\' WHERE id = %s', (changes,))
        postgres.execute("UPDATE merchants SET metadata = '{}' WHERE id = %s", (empties,))
        postgres.execute("DELETE FROM merchants WHERE id = %s", (leaves,))
        postgres.commit()
    _assert_staging_is_postgres(first_start, staged)

    with connect(first_start) as postgres:
        # Unchanged once more, now against the state that an earlier build left.
        postgres.execute("UPDATE merchants SET mcc = '5813' WHERE id = %s", (keeps,))
        postgres.execute("DELETE FROM merchants WHERE id = %s", (changes,))
        postgres.commit()
    _assert_staging_is_postgres(first_start, staged)
