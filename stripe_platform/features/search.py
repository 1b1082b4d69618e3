"""Search for support: merchants and charges by the words that people say on the phone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from pymongo.errors import OperationFailure
from rich.console import Console
from rich.table import Table

from stripe_platform.errors import StripePlatformError
from stripe_platform.features.connection import Documents, connect
from stripe_platform.features.exchange import REPORTING_EXPONENT
from stripe_platform.features.parents import COLLECTION, row_id
from stripe_platform.money import REPORTING_CURRENCY, major_units
from stripe_platform.settings import Settings

LIMIT = 20
SEARCH_LIMIT_MS = 5_000

_INDEX_NOT_FOUND = 27
_TIME_LIMIT_EXCEEDED = 50

# What readers skip: rows that are gone, and documents that wait for a row.
READABLE: Mapping[str, Any] = {"deleted": {"$exists": False}, "incomplete": {"$exists": False}}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEST_FIRST = [("score", {"$meta": "textScore"}), ("created", -1), ("_id", -1)]
_OF_ROW = ("merchant", "amount", "currency", "status", "statement_descriptor", "description", "decline_code")
_NEWEST_FIRST = [("created", -1), ("_id", -1)]


class NothingToSearch(StripePlatformError):
    """The collections have no text index: no writer has ever opened the store."""

    def __init__(self, documents: Documents) -> None:
        super().__init__(
            f"MongoDB's database {documents.name!r} has no index to search: no documents have been made in it yet, or "
            "the index is being built; wait, or "
            "start `stripe-platform stream` (`make up` does), or materialize features/charges and features/merchants"
        )


class SearchTooLong(StripePlatformError):
    """A search did not end in time."""

    def __init__(self) -> None:
        super().__init__(
            f"the search did not end within {SEARCH_LIMIT_MS / 1_000:g} s: too many documents have these words; "
            'search for rarer ones, or for "words that stand together"'
        )


class FoundMerchant(BaseModel):
    """A merchant whose name or statement descriptor was found."""

    id: str
    business_name: str
    statement_descriptor: str | None


class FoundCharge(BaseModel):
    """A charge that was found; `amount` in minor units with `exponent` decimals (None: the currency has not come)."""

    id: str
    created: datetime
    merchant: str
    amount: int
    currency: str
    exponent: int | None
    status: str
    statement_descriptor: str | None
    description: str | None
    decline_code: str | None
    seller_message: str | None
    refunded: int
    disputes: int


class Found(BaseModel):
    """What a search came to: the best first; after the charges found by their words the newest of found merchants."""

    merchants: list[FoundMerchant]
    charges: list[FoundCharge]


def search(settings: Settings, text: str, *, limit: int = LIMIT) -> Found:
    """Merchants by name or descriptor, charges by descriptor, description or decline reason, or of found merchants.

    Words are found whole, in any case; "quoted words" must stand together, -words must not occur. Deleted and
    incomplete documents are skipped. `MongoUnavailable` when the server cannot be reached, `NothingToSearch` before the
    first documents, `SearchTooLong`.
    """
    with connect(settings) as documents:
        return search_documents(documents, text, limit=limit)


def search_documents(documents: Documents, text: str, *, limit: int = LIMIT) -> Found:
    """As `search`, on an open database."""
    with _named_refusals(documents):
        return _search(documents, text, limit)


@contextmanager
def _named_refusals(documents: Documents) -> Iterator[None]:
    try:
        yield
    except OperationFailure as failure:
        # The server's message quotes the words.
        if failure.code == _INDEX_NOT_FOUND:
            raise NothingToSearch(documents) from None
        if failure.code == _TIME_LIMIT_EXCEEDED:
            raise SearchTooLong from None
        raise


def _search(documents: Documents, text: str, limit: int) -> Found:
    words = {"$text": {"$search": _with_code(text)}, **READABLE}
    merchants = _find(documents, "merchants", words, _BEST_FIRST, limit)
    charges = _find(documents, "charges", words, _BEST_FIRST, limit)
    of_merchants = {"merchant": {"$in": [merchant["_id"] for merchant in merchants]}, **READABLE}
    if merchants and len(charges) < limit:
        known = {charge["_id"] for charge in charges}
        more = _find(documents, "charges", of_merchants, _NEWEST_FIRST, limit)
        charges += [charge for charge in more if charge["_id"] not in known][: limit - len(charges)]
    exponents = _exponents(documents, {charge["currency"] for charge in charges})
    return Found(
        merchants=[
            FoundMerchant(
                id=found["_id"],
                business_name=found["business_name"],
                statement_descriptor=found["statement_descriptor"],
            )
            for found in merchants
        ],
        charges=[_found_charge(found, exponents) for found in charges],
    )


def print_found(found: Found, console: Console) -> None:
    """Show what was found as tables."""
    if found.merchants:
        merchants = Table("merchant", "name", "statement descriptor", title="Merchants")
        for merchant in found.merchants:
            merchants.add_row(merchant.id, merchant.business_name, merchant.statement_descriptor)
        console.print(merchants)
    if found.charges:
        charges = Table("charge", "created", "amount", "status", "descriptor", "said", title="Charges")
        for charge in found.charges:
            charges.add_row(
                charge.id,
                f"{charge.created:%Y-%m-%d %H:%M:%S}",
                _money(charge),
                charge.decline_code or charge.status,
                charge.statement_descriptor,
                charge.description or charge.seller_message,
            )
        console.print(charges)
    if not found.merchants and not found.charges:
        console.print("nothing found")


def _find(
    documents: Documents, collection: str, condition: Mapping[str, Any], order: Sequence[tuple[str, Any]], limit: int
) -> list[dict[str, Any]]:
    # The driver makes objects of its own of some JSON that looks like references.
    fields = {"metadata": 0, "payment_intent": 0, "_sources": 0}
    return list(documents[collection].find(condition, fields).sort(order).limit(limit).max_time_ms(SEARCH_LIMIT_MS))


def _with_code(text: str) -> str:
    """The words, and the code that they may be: insufficient_funds is one word of the index."""
    words = text.split()
    return f"{text} {'_'.join(words)}" if len(words) > 1 and all(word.isalpha() for word in words) else text


def _found_charge(found: Mapping[str, Any], exponents: Mapping[str, int]) -> FoundCharge:
    outcome = found["outcome"] or {}
    return FoundCharge(
        id=found["_id"],
        created=_EPOCH + timedelta(microseconds=found["created"]),
        exponent=exponents.get(found["currency"]),
        seller_message=outcome.get("seller_message"),
        refunded=found["amount_refunded"],
        disputes=len(found["disputes"]),
        **{name: found[name] for name in _OF_ROW},
    )


def _exponents(documents: Documents, currencies: set[str]) -> dict[str, int]:
    ids = [row_id("currencies", currency) for currency in currencies]
    rows = [found["row"] for found in documents[COLLECTION].find({"_id": {"$in": ids}, "row": {"$exists": True}})]
    return {REPORTING_CURRENCY: REPORTING_EXPONENT} | {row["code"]: row["exponent"] for row in rows}


def _money(charge: FoundCharge) -> str:
    if charge.exponent is None:
        return f"{charge.amount} minor units of {charge.currency}"
    return f"{major_units(charge.amount, charge.exponent)} {charge.currency}"
