"""Which stored charges embed what a batch changes: the queries that find them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stripe_platform.features.exchange import MICROSECONDS_A_DAY, Rates
from stripe_platform.features.parents import CARD_COLUMNS, METHOD_COLUMNS, Parents, Row, SourceRow
from stripe_platform.money import REPORTING_CURRENCY

Condition = Mapping[str, Any]

# More in one $or take the server longer to plan than to find.
_CLAUSES = 200
_INCOMPLETE: Condition = {"incomplete": {"$exists": True}}


def of_intents(parents: Parents) -> list[Condition]:
    """Charges of the intents that the batch changes: a few tries each."""
    intents = [row.reference for row in _changed(parents, "payment_intents")]
    return [{"payment_intent_id": {"$in": intents}}] if intents else []


def of_shared_rows(parents: Parents, rates: Rates) -> Iterator[Condition]:
    """Charges that do not say yet what changed cards, payment methods, rates and currencies say now.

    They may be many: one card or one day's rate may be in a hundred thousand. A query finds a charge no more once it
    has been written.
    """
    yield from _in_queries(
        [
            *_of_cards(_changed(parents, "card_fingerprints")),
            *_of_methods(_changed(parents, "payment_methods")),
            *_of_rates(rates),
            *_of_currencies(_changed(parents, "currencies")),
        ]
    )


def _changed(parents: Parents, table: str) -> list[SourceRow]:
    return [row for row in parents.changed if row.table == table]


def _in_queries(clauses: Sequence[Condition]) -> Iterator[Condition]:
    for start in range(0, len(clauses), _CLAUSES):
        yield {"$or": list(clauses[start : start + _CLAUSES])}


def _of_cards(cards: list[SourceRow]) -> Iterator[Condition]:
    known = [card for card in cards if card.row_before is not None]
    come = [card.reference for card in cards if card.row_before is None and card.row is not None]
    if come:
        # Every physical card has a brand.
        yield {"card.fingerprint": {"$in": come}, "card.brand": None}
    for card in known:
        if _differ(card.row_before, card.row, CARD_COLUMNS):
            yield {"card.fingerprint": card.reference, **_other_than(card.row, CARD_COLUMNS)}


def _of_methods(methods: list[SourceRow]) -> Iterator[Condition]:
    columns = ("card_fingerprint", *METHOD_COLUMNS)
    come = [method.reference for method in methods if method.row_before is None and method.row is not None]
    if come:
        yield {"payment_method": {"$in": come}, "card": None, **_INCOMPLETE}
    for method in methods:
        before, after = method.row_before, method.row
        if before is None or not _differ(before, after, columns):
            continue
        # By the card's index: an index on payment_method alone would cost every charge for this rare case.
        found = {"card.fingerprint": before["card_fingerprint"], "payment_method": method.reference}
        if after is None or after["card_fingerprint"] != before["card_fingerprint"]:
            yield found
        else:
            yield {**found, **_other_than(after, METHOD_COLUMNS)}


def _of_rates(rates: Rates) -> Iterator[Condition]:
    for currency, day in rates.changed_days():
        if currency == REPORTING_CURRENCY:
            continue
        following = rates.next_day(currency, day)
        created = {"$gte": day * MICROSECONDS_A_DAY}
        if following is not None:
            created["$lt"] = following * MICROSECONDS_A_DAY
        rates.load([(currency, day)])
        conversion = rates.conversion(currency, day)
        found = {"currency": currency, "created": created}
        if conversion is None:
            yield {**found, "exchange_rate": {"$ne": None}}
        else:
            used = conversion.used
            yield {**found, "$or": [{f"exchange_rate.{name}": {"$ne": used[name]}} for name in ("day", "rate")]}


def _of_currencies(currencies: list[SourceRow]) -> Iterator[Condition]:
    for currency in currencies:
        if currency.reference == REPORTING_CURRENCY or not _differ(currency.row_before, currency.row, ("exponent",)):
            continue
        found = {"currency": currency.reference}
        if currency.row is None:
            yield {**found, "exchange_rate": {"$ne": None}}
        else:
            yield {**found, "exchange_rate.exponent": {"$ne": currency.row["exponent"]}}


def _differ(before: Row | None, after: Row | None, columns: Sequence[str]) -> bool:
    if before is None or after is None:
        return before is not after
    return any(before[name] != after[name] for name in columns)


def _other_than(row: Row | None, columns: Sequence[str]) -> Condition:
    return {"$or": [{f"card.{name}": {"$ne": None if row is None else row[name]}} for name in columns]}
