"""Merchants, customers and cards made up for the references of an import: the same reference, the same party."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

# (merchant category code, what such a business calls itself)
CATEGORIES = (
    ("5411", "Grocery"),
    ("5812", "Restaurant"),
    ("5814", "Takeaway"),
    ("5541", "Fuel"),
    ("5651", "Clothing"),
    ("5732", "Electronics"),
    ("5912", "Pharmacy"),
    ("5942", "Books"),
    ("4111", "Transit"),
    ("7011", "Hotel"),
    ("7832", "Cinema"),
    ("5999", "Market"),
)
_FIRST_NAMES = ("Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord", "Grove", "Harbor", "Iris", "Juniper")
_EURO_AREA = ("AT", "BE", "DE", "ES", "FI", "FR", "GR", "IE", "IT", "LU", "NL", "PT")
# Every other currency begins with the code of its country.
_SHARED_CURRENCIES: Mapping[str, tuple[str, ...]] = {
    "eur": _EURO_AREA,
    "ang": ("CW", "SX"),
    "xaf": ("CM", "GA", "TD"),
    "xcd": ("AG", "LC", "VC"),
    "xof": ("CI", "SN", "ML"),
    "xpf": ("NC", "PF"),
}
# (brand, first digit of its numbers), as often as they are met.
_BRANDS = (("visa", "4"),) * 5 + (("mastercard", "5"),) * 4 + (("amex", "3"),)
_FUNDINGS = ("debit",) * 5 + ("credit",) * 4 + ("prepaid",)


@dataclass(frozen=True)
class Draw:
    """Numbers that follow from a text alone."""

    digest: bytes

    @classmethod
    def of(cls, kind: str, ref: str) -> "Draw":
        """The draw of a party; parties of different kinds with one reference have nothing in common."""
        return cls(sha256(f"{kind}\x1f{ref}".encode()).digest())

    def below(self, limit: int, place: int) -> int:
        """A number from 0 to `limit` - 1; `place` 0 to 7 chooses one of eight independent ones."""
        return int.from_bytes(self.digest[4 * place : 4 * place + 4], "big") % limit


def country_of(currency: str, draw: Draw) -> str:
    """A country where the currency is used."""
    countries = _SHARED_CURRENCIES.get(currency, (currency[:2].upper(),))
    return countries[draw.below(len(countries), 7)]


def merchant_attributes(ref: str, currency: str) -> dict[str, str]:
    """Plausible attributes of a merchant who was first paid in this currency."""
    draw = Draw.of("merchant", ref)
    mcc, category = CATEGORIES[draw.below(len(CATEGORIES), 0)]
    name = f"{_FIRST_NAMES[draw.below(len(_FIRST_NAMES), 1)]} {category} {draw.below(10_000, 2)}"
    return {
        "business_name": name,
        "mcc": mcc,
        "country": country_of(currency, draw),
        "default_currency": currency,
        "statement_descriptor": name.upper()[:22],
    }


def card_attributes(ref: str, currency: str) -> dict[str, str]:
    """The card of a customer: its fingerprint and what a card network tells of it."""
    draw = Draw.of("card", ref)
    brand, first_digit = _BRANDS[draw.below(len(_BRANDS), 0)]
    return {
        "fingerprint": draw.digest.hex()[:32],
        "brand": brand,
        "funding": _FUNDINGS[draw.below(len(_FUNDINGS), 4)],
        "issuer_country": country_of(currency, Draw.of("customer", ref)),
        "bin6": f"{first_digit}{draw.below(100_000, 5):05}",
        "last4": f"{draw.below(10_000, 6):04}",
    }


def merchant_rows(new: pl.DataFrame) -> pl.DataFrame:
    """Rows of `merchants` for `ref, id, created, currency`."""
    return _with_attributes(new.select("id", "created"), new, merchant_attributes)


def card_rows(new: pl.DataFrame) -> pl.DataFrame:
    """Rows of `card_fingerprints` for customers `ref, created, currency`."""
    return _with_attributes(new.select("created"), new, card_attributes)


def customer_rows(new: pl.DataFrame) -> pl.DataFrame:
    """Rows of `customers` for `ref, id, created, currency`; nothing that would name a person."""
    countries = [
        country_of(currency, Draw.of("customer", ref)) for ref, currency in new.select("ref", "currency").iter_rows()
    ]
    return new.select("id", "created", "currency").with_columns(country=pl.Series(countries, dtype=pl.String))


def payment_method_rows(new: pl.DataFrame) -> pl.DataFrame:
    """Rows of `payment_methods` for customers `ref, id, payment_method_id, created, currency`."""
    draws = [Draw.of("card", ref) for ref in new["ref"]]
    return new.select(
        pl.col("payment_method_id").alias("id"),
        pl.col("id").alias("customer_id"),
        pl.Series("card_fingerprint", [draw.digest.hex()[:32] for draw in draws], dtype=pl.String),
        pl.Series("exp_month", [1 + draw.below(12, 1) for draw in draws], dtype=pl.Int16),
        # The column ends at 2100.
        pl.min_horizontal(
            pl.col("created").dt.year() + pl.Series([1 + draw.below(4, 2) for draw in draws], dtype=pl.Int32),
            2100,
        ).alias("exp_year"),
        pl.lit("pass").alias("cvc_check"),
        "created",
    )


def _with_attributes(
    rows: pl.DataFrame, new: pl.DataFrame, attributes: Callable[[str, str], dict[str, str]]
) -> pl.DataFrame:
    made = [attributes(ref, currency) for ref, currency in new.select("ref", "currency").iter_rows()]
    return rows if not made else rows.hstack(pl.DataFrame(made))
