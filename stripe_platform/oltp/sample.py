"""A small file of payments that look real, for a first look at the platform; the same arguments, the same file."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

DAYS = 30
# A fixed day, so that a file made again tomorrow holds the same payments and imports nothing new.
UNTIL = datetime(2026, 11, 1, tzinfo=UTC)

_MERCHANTS = 40
_CUSTOMERS = 250
_FRAUD_SHARE = 0.01
_LONGEST_REPORT_SECONDS = 14 * 86_400
# Payments per hour of the day, UTC: little at night, a lunch and an evening peak.
_HOURS = np.array([2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 11, 13, 15, 13, 11, 11, 12, 14, 16, 15, 12, 9, 6, 4], dtype=float)


@dataclass(frozen=True)
class _Currency:
    """`minor` units make one major unit, `multiple` divides every amount, `price` is what one euro's worth costs."""

    code: str
    share: float
    minor: int
    multiple: int
    price: float


_CURRENCIES = (
    _Currency("eur", 0.50, 100, 1, 1.0),
    _Currency("usd", 0.22, 100, 1, 1.2),
    _Currency("gbp", 0.14, 100, 1, 0.9),
    _Currency("jpy", 0.09, 1, 1, 135.0),
    _Currency("kwd", 0.05, 1000, 10, 0.36),
)
# (median in euros, spread of the logarithm) of a groceries, coffee, fuel, clothes, electronics or hotel
# merchant.
_PRICES = ((24.0, 0.7), (5.0, 0.4), (48.0, 0.4), (60.0, 0.7), (180.0, 0.9), (140.0, 0.6))


def write_sample(path: Path, payments: int = 2000, seed: int = 1, until: datetime = UNTIL) -> None:
    """Write payments of the `DAYS` days before `until` as Parquet, or as CSV if the path ends so.

    40 merchants at most, each with prices of its kind and one currency (jpy without decimals and kwd with
    three among them); about 1 % of the payments, the dear ones first, are reported as fraud up to 14 days
    later. The file is there whole or not at all.
    """
    frame = sample_payments(payments, seed, until)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    if path.suffix == ".csv":
        frame.write_csv(part, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    else:
        frame.write_parquet(part)
    part.replace(path)


def sample_payments(payments: int, seed: int, until: datetime) -> pl.DataFrame:
    """The payments of `write_sample`, in order of time."""
    random = np.random.default_rng(seed)
    seconds = np.sort(_seconds_before(random, payments))
    merchant = random.zipf(1.4, payments) % _MERCHANTS
    customer = random.integers(_CUSTOMERS, size=payments)
    currency = random.choice(len(_CURRENCIES), _MERCHANTS, p=[currency.share for currency in _CURRENCIES])
    # Every currency is met, however the merchants fall.
    currency[: len(_CURRENCIES)] = range(len(_CURRENCIES))
    amount, euros = _amounts(random, merchant, currency[merchant])
    reported_after = random.integers(3600, _LONGEST_REPORT_SECONDS, size=payments)
    # Thieves buy what is dear.
    frauds = np.argsort(euros * random.random(payments))[payments - round(payments * _FRAUD_SHARE) :]
    fraudulent = np.isin(np.arange(payments), frauds)
    codes = [known.code for known in _CURRENCIES]
    start = int(until.timestamp())
    return pl.DataFrame(
        {
            "payment_ref": [f"sample-{seed}-{number:06}" for number in range(payments)],
            "occurred_at": start + seconds,
            "customer_ref": [f"sample-customer-{number:04}" for number in customer],
            "merchant_ref": [f"sample-merchant-{number:02}" for number in merchant],
            "amount": amount,
            "currency": [codes[number] for number in currency[merchant]],
            "fraud_reported_at": pl.Series(start + seconds + reported_after).set(pl.Series(~fraudulent), None),
        }
    ).with_columns(
        pl.from_epoch(name, "s").dt.replace_time_zone("UTC") for name in ("occurred_at", "fraud_reported_at")
    )


def _seconds_before(random: np.random.Generator, payments: int) -> npt.NDArray[np.int64]:
    day = random.integers(1, DAYS + 1, size=payments)
    hour = random.choice(24, payments, p=_HOURS / _HOURS.sum())
    second = random.integers(3600, size=payments)
    return -day * 86_400 + hour * 3600 + second


def _amounts(
    random: np.random.Generator, merchant: npt.NDArray[np.int64], currency: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Amounts in minor units of each row's currency, and what they are in euros."""
    medians, spreads = (np.array(column)[merchant % len(_PRICES)] for column in zip(*_PRICES, strict=True))
    euros = random.lognormal(np.log(medians), spreads)
    minor, multiple, price = (
        np.array([getattr(known, name) for known in _CURRENCIES])[currency] for name in ("minor", "multiple", "price")
    )
    steps = np.maximum(np.rint(euros * price * minor / multiple), 1).astype(np.int64)
    return steps * multiple, euros
