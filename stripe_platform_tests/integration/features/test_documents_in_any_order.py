"""Random histories of rows: whatever the order and the batches in which they come, the documents are the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from random import Random
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.client_session import ClientSession

from stripe_platform.features import projector
from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.reading import find_raw
from stripe_platform_tests.integration.features import rows
from stripe_platform_tests.integration.features.rows import DAY, KEYS, Row

CHARGES = [
    rows.charge(10, currency="usd", created=20_000 * DAY, payment_method_id=rows.uuid(30)),
    rows.charge(11, currency="jpy", created=20_001 * DAY - 1, payment_intent_id=rows.uuid(20)),
    rows.charge(12, created=20_001 * DAY, payment_method_id=rows.uuid(31), payment_intent_id=rows.uuid(20)),
    rows.charge(13, currency="usd", created=20_002 * DAY + 7, payment_method_id=rows.uuid(30)),
]
FINGERPRINTS = ("fingerprint-0001", "fingerprint-0002")
METADATA: tuple[Row, ...] = ({}, {"a": "$x"}, {"$set": {"b.c": [1, {"$ref": "z", "$id": 2}]}}, {"x": None, "y": 1.5})
CHILDREN = {"refunds": "re_", "disputes": "dp_", "early_fraud_warnings": "issfr_"}
CLOCKS = ("incomplete_since", "expires")


def _a_charge(random: Random) -> Row:
    row = random.choice(CHARGES)
    amount = random.choice((0, 1, 3, 1999, 10**12))
    return row | {"amount": amount, "status": random.choice(("succeeded", "failed")), "metadata": _json(random)}


def _a_method(random: Random) -> Row:
    return rows.method(
        random.choice((30, 31)),
        card_fingerprint=random.choice(FINGERPRINTS),
        exp_year=random.choice((2030, 2031)),
        metadata=_json(random),
    )


def _a_rate(random: Random) -> Row:
    value = random.choice(("0.9250000000", "0.0061500000", "1.5000000000"))
    return rows.rate(random.choice((19_999, 20_000, 20_001)), random.choice(("usd", "jpy")), value)


def _child_of(random: Random) -> tuple[int, Row]:
    # To which charge it belongs never changes.
    number = random.randrange(6)
    return 40 + number, CHARGES[number // 2]


def _json(random: Random) -> Any:
    return random.choice(METADATA)


def _time(random: Random) -> int:
    return 20_005 * DAY + random.randrange(3)


MAKE: Mapping[str, Callable[[Random], Row]] = {
    "charges": _a_charge,
    "payment_intents": lambda random: rows.intent(20, amount=random.randrange(9), metadata=_json(random)),
    "payment_methods": _a_method,
    "card_fingerprints": lambda random: rows.card(
        random.choice(FINGERPRINTS), brand=random.choice(("visa", "amex")), issuer_country=random.choice((None, "DE"))
    ),
    "currencies": lambda random: rows.currency(random.choice(("usd", "jpy")), random.choice((0, 2, 3))),
    "exchange_rates": _a_rate,
    "charge_outcomes": lambda random: rows.outcome(random.choice(CHARGES), risk_score=random.randrange(99)),
    "refunds": lambda random: rows.refund(*_child_of(random), created=_time(random), metadata=_json(random)),
    "disputes": lambda random: rows.dispute(
        *_child_of(random), created=_time(random), reason=random.choice(("fraudulent", "duplicate"))
    ),
    "early_fraud_warnings": lambda random: rows.warning(*_child_of(random), created=_time(random)),
    "merchants": lambda random: rows.merchant(1, country=random.choice(("DE", "FR"))),
    "customers": lambda random: rows.customer(2, metadata=_json(random)),
    "events": lambda random: rows.event(random.choice((70, 71)), payload=_json(random)),
}


# Where the rows of one table change the documents of many charges.
OFTEN = ("charges", "payment_methods", "card_fingerprints", "currencies", "exchange_rates")


@dataclass
class History:
    """What happened in PostgreSQL, as topics, and the rows that are left."""

    topics: rows.Topics = field(default_factory=rows.Topics)
    left: dict[tuple[str, tuple[Any, ...]], Row] = field(default_factory=dict)

    def go_on(self, random: Random) -> None:
        table = random.choice(OFTEN if random.random() < 0.6 else tuple(MAKE))
        row = MAKE[table](random)
        key = table, tuple(row[name] for name in KEYS.get(table, ("id",)))
        known = self.left.get(key)
        if known is None:
            self.left[key] = row
            self.topics.write(table, random.choice("ccr"), row)
            return
        match random.choice("uuddr"):
            case "d":
                del self.left[key]
                self.topics.write(table, "d", row)
            case "u":
                unchanged = [name for name in ("metadata", "description") if name in row and random.random() < 0.3]
                self.left[key] = row | {name: known[name] for name in unchanged}
                self.topics.write(table, "u", row, unchanged)
            case _:
                self.topics.write(table, "r", known)

    def rows_of(self, table: str) -> list[Row]:
        return [row for (of, _), row in self.left.items() if of == table]


def expected(history: History) -> dict[str, dict[str, Row]]:
    """The documents by their definition, from the rows that are left and the places of their last changes."""
    found: dict[str, dict[str, Row]] = {name: {} for name in rows.COLLECTIONS}
    found["charges"] = _expected_charges(history)
    for table, prefix in (("customers", "cus_"), ("merchants", "acct_"), ("events", "evt_")):
        for (key,), position in _positions(history, table).items():
            row = history.left.get((table, (key,)))
            document: Row = {"_sources": {table: position}}
            document |= {"deleted": True, "expires": None} if row is None else _renamed(row, drop=("id",))
            if row is not None and table == "events":
                document |= {"object_id": f"ch_{_digits(row['object_id'])}", "created_at": None}
            found[table][prefix + _digits(key)] = document
    for table in ("payment_intents", "payment_methods", "card_fingerprints", "currencies", "exchange_rates"):
        for values, position in _positions(history, table).items():
            row = history.left.get((table, values))
            document = {"expires": None} if row is None else {"row": _parent(table, row)}
            found["source_rows"]["/".join((table, *map(str, values)))] = document | position
    for change in history.topics.written:
        if change.table in CHILDREN and change.op == "d":
            marker = {"o": change.offset, "l": change.lsn, "d": True, "expires": None}
            found["source_rows"][f"{change.table}/{change.row['id']}"] = marker
    return found


def _expected_charges(history: History) -> dict[str, Row]:
    sources: dict[str, Row] = {}
    for table in ("charges", "charge_outcomes"):
        for (key, _), position in _positions(history, table).items():
            sources.setdefault(key, {})[table] = position
    for table in CHILDREN:
        for (owner, key), position in _child_positions(history, table).items():
            sources.setdefault(owner, {}).setdefault(table, {})[key] = position
    return {f"ch_{_digits(key)}": _expected_charge(history, key, positions) for key, positions in sources.items()}


def _expected_charge(history: History, key: str, sources: Row) -> Row:
    row = next((row for row in history.rows_of("charges") if row["id"] == key), None)
    document: Row = {"payment_intent": None, "card": None, "reporting_amount": None, "exchange_rate": None}
    missing: list[str] = []
    if row is not None:
        document |= _renamed(row, drop=("id",))
        document["payment_intent"] = _embedded_intent(history, row, missing)
        document["card"] = _embedded_card(history, row, missing)
        document |= _converted(history, row, missing)
    elif "charges" not in sources:
        missing.append("charge")
    else:
        document |= {"deleted": True, "expires": None}
    if missing:
        document |= {"incomplete": missing, "incomplete_since": None}
    outcomes = [_renamed(row) for row in history.rows_of("charge_outcomes") if row["charge_id"] == key]
    document["outcome"] = _child(outcomes[0]) if outcomes else None
    for table, prefix in CHILDREN.items():
        held = [row for row in history.rows_of(table) if row["charge_id"] == key]
        held.sort(key=lambda row: (row["created"], row["id"]))
        document[table] = [_child(row) | {"id": prefix + _digits(row["id"])} for row in held]
    frauds = [child["created"] for child in document["early_fraud_warnings"]]
    frauds += [child["created"] for child in document["disputes"] if child["reason"] == "fraudulent"]
    return document | {"fraud_known_at": min(frauds) if frauds else None, "_sources": sources}


def _embedded_intent(history: History, charge: Row, missing: list[str]) -> Row | None:
    if charge["payment_intent_id"] is None:
        return None
    for row in history.rows_of("payment_intents"):
        if row["id"] == charge["payment_intent_id"]:
            return _parent("payment_intents", row)
    missing.append("payment_intent")
    return None


def _embedded_card(history: History, charge: Row, missing: list[str]) -> Row | None:
    method = next((row for row in history.rows_of("payment_methods") if row["id"] == charge["payment_method_id"]), None)
    if charge["payment_method_id"] is None:
        return None
    card = method and next(
        (row for row in history.rows_of("card_fingerprints") if row["fingerprint"] == method["card_fingerprint"]), None
    )
    if not card:
        missing.append("card")
    if not method:
        return None
    physical = {name: card[name] if card else None for name in ("brand", "funding", "issuer_country", "last4")}
    own = {name: method[name] for name in ("exp_month", "exp_year", "wallet")}
    return {"fingerprint": method["card_fingerprint"], **physical, **own}


def _converted(history: History, charge: Row, missing: list[str]) -> Row:
    code = charge["currency"]
    if code == "eur":
        return {"reporting_amount": charge["amount"], "exchange_rate": None}
    known = [row for row in history.rows_of("currencies") if row["code"] == code]
    rates = [row for row in history.rows_of("exchange_rates") if row["currency"] == code]
    rates = [row for row in rates if row["day"] * DAY <= charge["created"]]
    if not known or not rates:
        missing.append("exchange_rate")
        return {"reporting_amount": None, "exchange_rate": None}
    rate = max(rates, key=lambda row: row["day"])
    exponent = known[0]["exponent"]
    exact = Decimal(charge["amount"]) * Decimal(rate["rate"]) * Decimal(10) ** (2 - exponent)
    used = {"day": rate["day"], "rate": rate["rate"], "exponent": exponent}
    return {"reporting_amount": int(exact.quantize(Decimal(1), ROUND_HALF_EVEN)), "exchange_rate": used}


def _positions(history: History, table: str) -> dict[tuple[Any, ...], Row]:
    found: dict[tuple[Any, ...], Row] = {}
    for change in history.topics.written:
        if change.table == table:
            key = tuple(change.row[name] for name in KEYS.get(table, ("id",)))
            found[key] = _moved(found.get(key), change)
    return found


def _child_positions(history: History, table: str) -> dict[tuple[str, str], Row]:
    owners = {c.row["id"]: c.row["charge_id"] for c in history.topics.written if c.table == table and c.op != "d"}
    return {(owners[key], key): position for (key,), position in _positions(history, table).items()}


def _moved(position: Row | None, change: Change) -> Row:
    known = None if position is None else position["l"]
    lsns = [lsn for lsn in (change.lsn, known) if lsn is not None]
    return {"o": change.offset, "l": max(lsns, default=None), "d": change.op == "d"}


def _parent(table: str, row: Row) -> Row:
    prefix = {"payment_intents": "pi_", "payment_methods": "pm_"}.get(table)
    return _renamed(row) | ({"id": prefix + _digits(row["id"])} if prefix else {})


def _child(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("charge_id", "charge_created")}


def _renamed(row: Row, drop: tuple[str, ...] = ()) -> Row:
    names = {"merchant_id": "merchant", "customer_id": "customer", "payment_method_id": "payment_method"}
    names |= {"invoice_id": "invoice", "latest_charge_id": "latest_charge"}
    prefixes = {"merchant": "acct_", "customer": "cus_", "payment_method": "pm_", "payment_intent_id": "pi_"}
    renamed = {names.get(name, name): value for name, value in row.items() if name not in drop}
    for name, prefix in prefixes.items():
        if renamed.get(name) is not None:
            renamed[name] = prefix + _digits(renamed[name])
    return renamed


def _digits(key: str) -> str:
    return key.replace("-", "")


class Mirror:
    """Keeps the charges by the deltas alone, as tiles do."""

    def __init__(self) -> None:
        self.kept: dict[str, Row] = {}

    def deltas(self, before: RawBSONDocument | None, after: Mapping[str, Any]) -> None:
        assert self.kept.get(after["_id"]) == (before and bson.decode(before.raw))
        self.kept[after["_id"]] = bson.decode(bson.encode(after))

    def write(self, session: ClientSession) -> Mapping[str, int]:
        assert session.in_transaction
        return {}


def interleaved(changes: list[Change], random: Random) -> list[Change]:
    """The changes in another order that keeps each table's."""
    queues: dict[str, list[Change]] = {}
    for change in changes:
        queues.setdefault(change.table, []).append(change)
    left = [list(reversed(queue)) for queue in queues.values()]
    mixed = []
    while left:
        # A long stretch of one table now and then: it may come whole before the others.
        queue = random.choice(left)
        for _ in range(random.choice((1, 1, 3, 30))):
            if queue:
                mixed.append(queue.pop())
        left = [queue for queue in left if queue]
    return mixed


def take_in_random_batches(documents: Documents, changes: list[Change], random: Random, mirror: Mirror) -> None:
    while changes:
        size = random.choice((1, 2, 5, 50))
        rows.take_batch(documents, changes[:size], mirror)
        changes = changes[size:]


def without_clocks(found: Mapping[str, Mapping[str, Row]]) -> Mapping[str, Mapping[str, Row]]:
    """The documents with null for what the clock says, and without `_id`, which is the key here."""
    return {
        name: {
            id_: {
                field: None if field in (*CLOCKS, "created_at") else _as_stored(value)
                for field, value in document.items()
                if field != "_id"
            }
            for id_, document in documents.items()
        }
        for name, documents in found.items()
    }


def _as_stored(value: Any) -> Any:
    """What looks like a reference, which the driver's default decoder makes an object of its own of."""
    if hasattr(value, "as_doc"):
        return dict(value.as_doc())
    if isinstance(value, dict):
        return {name: _as_stored(inner) for name, inner in value.items()}
    return [_as_stored(inner) for inner in value] if isinstance(value, list) else value


def raw_contents(documents: Documents) -> dict[str, list[bytes]]:
    """The bytes of every document."""
    return {
        name: sorted(bytes(found.raw) for found in find_raw(None, documents, name, {})) for name in rows.COLLECTIONS
    }


@pytest.fixture
def slices_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that histories of few charges go ahead in slices too."""
    monkeypatch.setattr(projector, "SLICE", 3)


# Not shrunk: a smaller seed is no simpler history, and the search would take minutes.
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), length=st.integers(100, 300))
def test_any_order_of_tables_and_any_batches_give_the_documents_of_the_rows_that_are_left(
    documents: Documents, slices_of_three: None, seed: int, length: int
) -> None:
    random, history, mirror = Random(seed), History(), Mirror()  # noqa: S311 - a history, not a secret
    rows.clear(documents)
    for _ in range(length):
        history.go_on(random)
    changes = history.topics.written

    take_in_random_batches(documents, interleaved(changes, random), random, mirror)

    assert without_clocks(rows.contents(documents)) == without_clocks(expected(history))
    before = raw_contents(documents)
    assert without_clocks({"charges": mirror.kept}) == without_clocks({"charges": rows.stored(documents, "charges")})
    # Any prefix of any table again, from its beginning.
    take_in_random_batches(documents, interleaved(changes[: random.randrange(length) + 1], random), random, mirror)
    assert raw_contents(documents) == before
    # Old streamed changes, written into their topics again by hand.
    again = [
        history.topics.write_at(old.lsn, old.table, old.op, dict(old.row))
        for old in list(changes)
        if old.lsn is not None
    ]
    assert rows.take(documents, interleaved(again, random)).applied == 0
    assert raw_contents(documents) == before
