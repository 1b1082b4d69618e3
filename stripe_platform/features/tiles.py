"""Tiles: what the payments of an entity add up to, slot by slot, in one document per UTC day."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from operator import add, itemgetter, sub
from typing import Any, NamedTuple

from bson import Int64
from pymongo import DeleteOne, IndexModel, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database

from stripe_platform.features.payments import Entity, Payment
from stripe_platform.features.windows import day_of, slot_name, slot_of

# Windows reach back 37 days; the rest is for a stream that is behind.
KEPT_AFTER_LAST_WRITE = timedelta(days=45)


class TileKey(NamedTuple):
    """Whose slot: the entity's key and the first microsecond of the slot."""

    entity: Entity
    key: str
    start: int


class Tile(NamedTuple):
    """Sums over payments, exact integers: how many, how many declined, their amount in minor units of the reporting
    currency, how many have none, how many were ever reported as fraudulent."""

    payments: int = 0
    declined: int = 0
    amount: int = 0
    unconverted: int = 0
    fraud: int = 0

    def plus(self, other: "Tile") -> "Tile":
        """The sum of both, field by field."""
        return Tile(*map(add, self, other))

    def minus(self, other: "Tile") -> "Tile":
        """What is left of this one without the other, field by field."""
        return Tile(*map(sub, self, other))


NOTHING = Tile()
_ENTITIES = tuple(Entity)
_tile_fields = itemgetter(*Tile._fields)


def stored_tile(document: Mapping[str, Any]) -> Tile:
    """The tile whose fields a document holds, among others."""
    return Tile(*_tile_fields(document))


def tile_of(payment: Payment) -> Tile:
    """What one payment adds to its tiles."""
    unconverted = payment.amount is None
    return Tile(
        1, int(payment.declined), payment.amount or 0, int(unconverted), int(payment.fraud_known_at is not None)
    )


def deltas(before: Payment | None, after: Payment | None) -> dict[TileKey, Tile]:
    """What a change of one payment changes in the tiles of its entities; None: it is not there, before or after."""
    changed = {} if after is None else _tiles_of(after)
    if before is None:
        return changed
    for place, tile in _tiles_of(before).items():
        changed[place] = changed.get(place, NOTHING).minus(tile)
    return {place: tile for place, tile in changed.items() if any(tile)}


def _tiles_of(payment: Payment) -> dict[TileKey, Tile]:
    start, tile = slot_of(payment.created), tile_of(payment)
    keys = ((entity, payment.key(entity)) for entity in _ENTITIES)
    return {TileKey(entity, key, start): tile for entity, key in keys if key is not None}


def total(many: Iterable[Mapping[TileKey, Tile]]) -> dict[TileKey, Tile]:
    """The deltas of many changes as one: each tile once, those left out that come to nothing."""
    collapsed: dict[TileKey, Tile] = {}
    for each in many:
        for place, tile in each.items():
            known = collapsed.get(place)
            collapsed[place] = tile if known is None else known.plus(tile)
    return {place: tile for place, tile in collapsed.items() if any(tile)}


def write(
    session: ClientSession,
    database: Database[dict[str, Any]],
    deltas: Mapping[TileKey, Tile],
    kept_since: datetime | None = None,
) -> None:
    """Add deltas to the stored tiles, within the session's transaction; tiles that come to no payment are removed.

    What is stored is the sum of all deltas ever written, whatever their order and their batches; or nothing of a day
    that has expired. `kept_since` is when the first tile may have been written, None when none can have expired.
    """
    changed: dict[Entity, _Days] = {entity: defaultdict(dict) for entity in _ENTITIES}
    for (entity, key, start), tile in deltas.items():
        changed[entity][key, day_of(start)][slot_name(start)] = tile
    now = datetime.now(UTC)
    oldest = None if kept_since is None else oldest_begun(kept_since, now)
    for entity, days in changed.items():
        if days:
            _write_days(session, database[entity.collection], days, _expires(now), oldest)


# By key and day: what is added to its slots.
_Days = dict[tuple[str, int], dict[str, Tile]]


def oldest_begun(kept_since: datetime, now: datetime) -> int | None:
    """The first day of which nothing can have expired, in a store that keeps tiles since then; None: nothing can."""
    first_left = now.date() - KEPT_AFTER_LAST_WRITE
    if kept_since.date() >= first_left:
        return None
    return (first_left - date(1970, 1, 1)).days


def _write_days(
    session: ClientSession, collection: Collection[dict[str, Any]], days: _Days, expires: datetime, oldest: int | None
) -> None:
    # Most cards pay once a day: to insert a document costs the server two thirds of what an upsert does.
    wanted = {"_id": {"$in": [_id(*place) for place in days]}}
    held = {tuple(document["_id"].values()) for document in collection.find(wanted, {"_id": 1}, session=session)}
    # A day that may have expired is not begun anew: what else was paid on it would be missing.
    begins = (place for place in days if place not in held and (oldest is None or place[1] >= oldest))
    new = [_begun(place, days[place], expires) for place in begins]
    # Nor is one by what only corrects it.
    if begun := [document for document in new if document["payments"]]:
        collection.insert_many(begun, ordered=False, session=session)
    known = {place: slots for place, slots in days.items() if place in held}
    if known:
        updates = [_update(place, slots, expires) for place, slots in known.items()]
        collection.bulk_write(updates, ordered=False, session=session)
    # In a batch of their own: an unordered one may remove before it adds.
    if removals := [removal for place, slots in known.items() for removal in _removals(place, slots)]:
        collection.bulk_write(removals, session=session)


def _expires(written_at: datetime) -> datetime:
    # At midnight, so that the index of expiry is not written to at every payment.
    return datetime.combine(written_at.date() + KEPT_AFTER_LAST_WRITE + timedelta(days=1), time(), UTC)


def _id(key: str, day: int) -> dict[str, Any]:
    return {"entity": key, "day": day}


def _begun(place: tuple[str, int], slots: Mapping[str, Tile], expires: datetime) -> dict[str, Any]:
    begun = {name: tile for name, tile in slots.items() if tile.payments > 0}
    stored = {name: _stored(tile) for name, tile in begun.items()}
    return {"_id": _id(*place), **_stored(_sum_of(begun.values())), "slots": stored, "expires": expires}


def _stored(tile: Tile) -> dict[str, Int64]:
    # A plain int that is small would be stored in 32 bits.
    return dict(zip(Tile._fields, map(Int64, tile), strict=True))


def _update(place: tuple[str, int], slots: Mapping[str, Tile], expires: datetime) -> UpdateOne:
    added = _stored(_sum_of(slots.values()))
    for name, tile in slots.items():
        added |= {f"slots.{name}.{field}": value for field, value in _stored(tile).items()}
    return UpdateOne({"_id": _id(*place)}, {"$inc": added, "$set": {"expires": expires}})


def day_of_payments(payments: Iterable[Payment]) -> dict[str, Any] | None:
    """What the tile of a day with these payments holds beside its key and expiry; None when there are none."""
    slots: dict[str, Tile] = {}
    for payment in payments:
        name = slot_name(payment.created)
        slots[name] = slots.get(name, NOTHING).plus(tile_of(payment))
    if not slots:
        return None
    return {**_stored(_sum_of(slots.values())), "slots": {name: _stored(tile) for name, tile in slots.items()}}


def _removals(place: tuple[str, int], slots: Mapping[str, Tile]) -> Iterator[UpdateOne | DeleteOne]:
    emptied = [name for name, tile in slots.items() if tile.payments < 0]
    for name in emptied:
        yield UpdateOne({"_id": _id(*place), f"slots.{name}.payments": {"$lte": 0}}, {"$unset": {f"slots.{name}": ""}})
    if emptied:
        yield DeleteOne({"_id": _id(*place), "payments": {"$lte": 0}})


def _sum_of(tiles: Iterable[tuple[int, ...]]) -> Tile:
    """The sum of tiles."""
    return Tile(*map(sum, zip(*tiles, strict=True)))


def running_sums(
    days: Mapping[int, Mapping[str, Any]], edges: Mapping[int, Tile], cuts: Iterable[int]
) -> dict[int, Tile]:
    """{cut: the sum of the payments up to and including it}, over the days given, for cuts in ascending order.

    `days` are documents by day, `slots` needed only in those of cuts; `edges` by the start of their slot: the payments
    from there to the cut. The payments of a window are the difference of the sums at its ends, to the last unit.
    """
    sums: dict[int, Tile] = {}
    whole = NOTHING
    ahead = sorted(days, reverse=True)
    for cut in cuts:
        while ahead and ahead[-1] < day_of(cut):
            whole = whole.plus(stored_tile(days[ahead.pop()]))
        begun = days.get(day_of(cut), {}).get("slots", {})
        name = slot_name(cut)
        filled = _sum_of(_tile_fields(tile) for begins, tile in begun.items() if begins < name)
        sums[cut] = whole.plus(filled).plus(edges.get(slot_of(cut), NOTHING))
    return sums


_SUMS = {field: {"bsonType": "long"} for field in Tile._fields}

TILE_VALIDATOR: Mapping[str, Any] = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", *Tile._fields, "slots", "expires"],
        "additionalProperties": False,
        "properties": {
            "_id": {
                "bsonType": "object",
                "required": ["entity", "day"],
                "additionalProperties": False,
                "properties": {
                    "entity": {"bsonType": "string"},
                    "day": {"bsonType": "int", "description": "days since 1970, UTC"},
                },
            },
            **_SUMS,
            "slots": {
                "bsonType": "object",
                "additionalProperties": False,
                "patternProperties": {
                    "^[0-2][0-9]:[0-5][0-9]$": {
                        "bsonType": "object",
                        "required": [*Tile._fields],
                        "additionalProperties": False,
                        "properties": _SUMS,
                    }
                },
            },
            "expires": {"bsonType": "date"},
        },
    }
}

TILE_INDEXES: tuple[IndexModel, ...] = (IndexModel([("expires", 1)], name="expires", expireAfterSeconds=0),)
