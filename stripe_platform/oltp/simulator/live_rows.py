"""Rows of single transactions, as an application writes them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from stripe_platform.oltp.simulator.events import API_VERSION
from stripe_platform.oltp.tables import SCHEMA

AVAILABLE_AFTER_DAYS = 2

Row = dict[str, Any]


class Overtaken(Exception):
    """Somebody else has changed the row meanwhile: the transaction is rolled back, and nothing is wrong."""


@cache
def _statement(table: str, columns: tuple[str, ...]) -> bytes:
    # As bytes: to compose it anew for each row costs as much as to send the row.
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(SCHEMA, table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
    )
    return statement.as_bytes()


def insert(connection: psycopg.Connection, table: str, row: Row) -> None:
    """Insert one row."""
    connection.execute(_statement(table, tuple(row)), list(row.values()))


def changed_one(cursor: psycopg.Cursor[Any]) -> None:
    """Raise `Overtaken` unless the statement has changed exactly one row."""
    if cursor.rowcount != 1:
        raise Overtaken


@dataclass(frozen=True)
class Moment:
    """When a transaction happens: the time of its rows, the same however often it is tried."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: UUID = field(default_factory=uuid7)

    def event(self, type_: str, object_type: str, object_id: UUID, merchant_id: UUID | None, **fields: object) -> Row:
        """A row of `events`."""
        return self._event(uuid7(), (type_, object_type, object_id, merchant_id), fields)

    def witness(self, type_: str, object_type: str, object_id: UUID, merchant_id: UUID | None, **fields: object) -> Row:
        """The one row of `events`, in each transaction, that tells whether it committed: its key is `id`."""
        return self._event(self.id, (type_, object_type, object_id, merchant_id), fields)

    def is_there(self, connection: psycopg.Connection) -> bool:
        """Whether the transaction of this moment has committed."""
        query = "SELECT FROM payments.events WHERE id = %s AND created = %s"
        return connection.execute(query, [self.id, self.at]).fetchone() is not None

    def _event(self, id_: UUID, of: tuple[str, str, UUID, UUID | None], fields: dict[str, object]) -> Row:
        type_, object_type, object_id, merchant_id = of
        return {
            "id": id_,
            "merchant_id": merchant_id,
            "type": type_,
            "object_type": object_type,
            "object_id": object_id,
            "api_version": API_VERSION,
            "payload": Jsonb({"id": str(object_id), **fields}),
            "created": self.at,
        }

    def movement(self, merchant_id: UUID, amount: int, currency: str, **columns: object) -> Row:
        """A row of `balance_transactions`; available at once and without fee unless `columns` say otherwise."""
        row = {
            "id": uuid7(),
            "merchant_id": merchant_id,
            "amount": amount,
            "fee": 0,
            "currency": currency,
            "status": "available",
            "available_on": self.at,
            "created": self.at,
            **columns,
        }
        return row | {"net": amount - row["fee"]}  # type: ignore[operator]


def fee_of(movement: Row) -> Row:
    """The row of `fee_details` of a movement that costs something: one part, the whole fee."""
    return {
        "id": uuid7(),
        "balance_transaction_id": movement["id"],
        "balance_transaction_created": movement["created"],
        "amount": movement["fee"],
        "currency": movement["currency"],
        "type": "stripe_fee",
        "description": "Processing fee",
        "created": movement["created"],
    }
