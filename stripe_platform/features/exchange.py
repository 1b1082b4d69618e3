"""Amounts in the reporting currency, by the rate that was known before the payment."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pymongo.client_session import ClientSession

from stripe_platform.features.connection import Documents
from stripe_platform.features.parents import COLLECTION, Parents, SourceRow, row_id
from stripe_platform.money import REPORTING_CURRENCY

REPORTING_EXPONENT = 2
MICROSECONDS_A_DAY = 86_400_000_000
# exchange_rates.rate is numeric(20, 10).
RATE_DECIMALS = 10
LARGEST_AMOUNT = 2**63 - 1
# Rates come every working day: so far back the last one before a payment is looked for first.
NEAR_DAYS = 7

CurrencyDay = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Conversion:
    """From minor units of a currency to those of eur on the days of one rate.

    `used` is what the charge's document says of it: the day and text of the rate, the currency's exponent.
    """

    used: Mapping[str, Any]
    numerator: int
    denominator: int

    def convert(self, amount: int) -> int | None:
        """The amount by the rate, rounded half to even; None when it is beyond 64 bits."""
        whole, rest = divmod(amount * self.numerator, self.denominator)
        if 2 * rest > self.denominator or (2 * rest == self.denominator and whole % 2):
            whole += 1
        return whole if abs(whole) <= LARGEST_AMOUNT else None


def conversion(rate: Mapping[str, Any], exponent: int) -> Conversion:
    """The conversion by a row of `exchange_rates` from a currency with so many decimals."""
    return Conversion(
        used={"day": rate["day"], "rate": rate["rate"], "exponent": exponent},
        numerator=int(Decimal(rate["rate"]).scaleb(RATE_DECIMALS)),
        denominator=10 ** (RATE_DECIMALS + exponent - REPORTING_EXPONENT),
    )


def day_of(created: int) -> int:
    """The UTC day, as days since 1970, of an instant in microseconds."""
    return created // MICROSECONDS_A_DAY


class Rates:
    """The rates that are stored, under those that the batch changes."""

    def __init__(self, session: ClientSession | None, documents: Documents, parents: Parents) -> None:
        self._session, self._rows, self._parents = session, documents[COLLECTION], parents
        self._changed: dict[str, dict[int, SourceRow]] = {}
        for row in parents.changed:
            table, *key = row.id.split("/")
            if table == "exchange_rates":
                self._changed.setdefault(key[1], {})[int(key[0])] = row
        self._days: dict[str, list[int]] = {}
        self._by_day: dict[CurrencyDay, Mapping[str, Any]] = {}
        self._conversions: dict[CurrencyDay, Conversion | None] = {}

    def load(self, wanted: Iterable[CurrencyDay]) -> None:
        """Read what is needed for payments of these currencies on these days."""
        first_and_last: dict[str, tuple[int, int]] = {}
        for currency, day in wanted:
            first, last = first_and_last.get(currency, (day, day))
            first_and_last[currency] = min(first, day), max(last, day)
        first_and_last.pop(REPORTING_CURRENCY, None)
        if not first_and_last:
            return
        self._parents.load(row_id("currencies", currency) for currency in first_and_last)
        stored: dict[str, list[Mapping[str, Any]]] = {currency: [] for currency in first_and_last}
        for rate in self._near(first_and_last):
            stored[rate["currency"]].append(rate)
        for currency, (first, _) in first_and_last.items():
            rows = self._as_changed(currency, stored[currency])
            if not any(first - NEAR_DAYS < day <= first for day in rows):
                rows |= self._as_changed(currency, self._up_to(currency, first - NEAR_DAYS))
            self._days[currency] = sorted(rows)
            self._by_day |= {(currency, day): rate for day, rate in rows.items()}

    def _near(self, first_and_last: Mapping[str, tuple[int, int]]) -> list[Mapping[str, Any]]:
        """The stored rates from shortly before the first day to the last one, of all currencies at once."""
        near = [
            {"row.currency": currency, "row.day": {"$gt": first - NEAR_DAYS, "$lte": last}}
            for currency, (first, last) in first_and_last.items()
        ]
        return [found["row"] for found in self._rows.find({"$or": near}, {"row": 1}, session=self._session)]

    def _up_to(self, currency: str, day: int) -> list[Mapping[str, Any]]:
        # So many that one of them is untouched by the batch, if there is one.
        limit = 1 + len(self._changed.get(currency, ()))
        found = self._rows.find({"row.currency": currency, "row.day": {"$lte": day}}, {"row": 1}, session=self._session)
        return [document["row"] for document in found.sort("row.day", -1).limit(limit)]

    def _as_changed(self, currency: str, stored: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
        """{day: rate} as the batch leaves them."""
        changed = self._changed.get(currency, {})
        rows = {rate["day"]: rate for rate in stored if rate["day"] not in changed}
        return rows | {day: row.row for day, row in changed.items() if row.row is not None}

    def conversion(self, currency: str, day: int) -> Conversion | None:
        """For a currency and day that were loaded; None when no rate, or not the currency, has come."""
        key = currency, day
        if key not in self._conversions:
            self._conversions[key] = self._find(currency, day)
        return self._conversions[key]

    def _find(self, currency: str, day: int) -> Conversion | None:
        row = self._parents.row(row_id("currencies", currency))
        days = self._days[currency]
        place = bisect_right(days, day)
        if row is None or not place:
            return None
        return conversion(self._by_day[currency, days[place - 1]], row["exponent"])

    def changed_days(self) -> list[CurrencyDay]:
        """The days whose rate the batch brings, changes or takes away."""
        return [(currency, day) for currency, days in self._changed.items() for day in days]

    def next_day(self, currency: str, day: int) -> int | None:
        """The day of the stored rate that follows; charges from it on do not depend on the rate of `day`."""
        changed = self._changed.get(currency, {})
        found = (
            self._rows.find({"row.currency": currency, "row.day": {"$gt": day}}, {"row.day": 1}, session=self._session)
            .sort("row.day", 1)
            .limit(1 + len(changed))
        )
        days = {document["row"]["day"] for document in found} - changed.keys()
        days |= {other for other, row in changed.items() if other > day and row.row is not None}
        return min(days, default=None)
