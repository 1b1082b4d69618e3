"""MongoDB beside PostgreSQL: the charges column by column, and the tiles as sums over them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psycopg

from stripe_platform.features.connection import connect as connect_documents
from stripe_platform.features.ids import prefixed, with_references
from stripe_platform.oltp.catalog import Column, captured_columns
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import SCHEMA
from stripe_platform.settings import Settings

CHILDREN = ("refunds", "disputes", "early_fraud_warnings")
# Whose payments a collection of tiles sums up, and where a charge's document names them.
ENTITIES = {"card_features": "card", "customer_features": "customer", "merchant_features": "merchant"}
SUMS = ("payments", "declined", "amount", "unconverted", "fraud")
DAY_US = 86_400_000_000

Row = dict[str, Any]
DaySums = dict[tuple[str, int], tuple[int, ...]]


def assert_documents_are_oltp(settings: Settings) -> None:
    """Every charge with the rows that it embeds is as in PostgreSQL, none is missing, and the tiles are their sums."""
    with connect(settings) as postgres:
        expected = _charges(postgres)
    with connect_documents(settings) as documents:
        found = {charge["_id"]: charge for charge in documents["charges"].find({"deleted": {"$ne": True}})}
        tiles = {collection: _stored_sums(documents[collection].find()) for collection in ENTITIES}
    alone = found.keys() ^ expected.keys()
    assert not alone, f"{len(alone)} charges are on one side alone, {len(expected)} in PostgreSQL"
    differing = [id_ for id_, charge in expected.items() if charge != {name: found[id_].get(name) for name in charge}]
    assert not differing, f"{len(differing)} of {len(expected)} charges differ"
    assert not any("incomplete" in charge for charge in found.values()), "a charge lacks what it embeds"
    for collection, entity in ENTITIES.items():
        assert tiles[collection] == _sums(found.values(), entity), collection


def _charges(postgres: psycopg.Connection) -> dict[str, Row]:
    """{id: what PostgreSQL says of a charge, in the shape of its document}."""
    columns = captured_columns(postgres)
    intents = {row["id"]: row for row in _rows(postgres, "payment_intents", columns)}
    charges = {row.pop("id"): row for row in _rows(postgres, "charges", columns)}
    for charge in charges.values():
        charge |= {"payment_intent": intents.get(charge["payment_intent_id"]), "outcome": None}
        charge |= {table: [] for table in CHILDREN}
    for outcome in _rows(postgres, "charge_outcomes", columns):
        charges[_charge_of(outcome)]["outcome"] = outcome
    for table in CHILDREN:
        for child in sorted(_rows(postgres, table, columns), key=lambda row: (row["created"], row["id"])):
            charges[_charge_of(child)][table].append(child)
    return charges


def _rows(postgres: psycopg.Connection, table: str, columns: Mapping[str, tuple[Column, ...]]) -> Iterator[Row]:
    listed = columns[table]
    names = ", ".join(_expression(column) for column in listed)
    for values in postgres.execute(f"SELECT {names} FROM {SCHEMA}.{table}".encode()):
        row = with_references(dict(zip((column.name for column in listed), values, strict=True)))
        yield row | {"id": prefixed(table, row["id"])} if "id" in row else row


def _expression(column: Column) -> str:
    if column.type == "timestamptz":
        return f"(extract(epoch from {column.name}) * 1000000)::bigint"
    return f"{column.name}::text" if column.type in ("uuid", "inet") else column.name


def _charge_of(row: Row) -> str:
    del row["charge_created"]
    return prefixed("charges", row.pop("charge_id"))


def _sums(charges: Iterable[Row], entity: str) -> DaySums:
    """{(key of the entity, day): the sums of its payments}."""
    sums: dict[tuple[str, int], list[tuple[int, ...]]] = defaultdict(list)
    for charge in charges:
        key = (charge["card"] or {}).get("fingerprint") if entity == "card" else charge[entity]
        if key is not None:
            amount, fraud = charge["reporting_amount"], charge["fraud_known_at"]
            payment = (1, charge["status"] == "failed", amount or 0, amount is None, fraud is not None)
            sums[key, charge["created"] // DAY_US].append(payment)
    return {place: _added(payments) for place, payments in sums.items()}


def _stored_sums(tiles: Iterable[Row]) -> DaySums:
    found = {}
    for tile in tiles:
        sums = tuple(tile[name] for name in SUMS)
        assert sums == _added([tuple(slot[name] for name in SUMS) for slot in tile["slots"].values()]), tile["_id"]
        found[tile["_id"]["entity"], tile["_id"]["day"]] = sums
    return found


def _added(many: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*many, strict=True)))
