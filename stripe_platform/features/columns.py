"""The columns that the documents cannot do without; every other one may come and go."""

from collections.abc import Collection, Mapping

from stripe_platform.errors import StripePlatformError

# What the code reads by name, and what the validators, the features and the search ask of a document.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "charges": (
        "id",
        "created",
        "merchant_id",
        "customer_id",
        "payment_method_id",
        "payment_intent_id",
        "amount",
        "amount_refunded",
        "currency",
        "status",
        "decline_code",
        "description",
        "statement_descriptor",
    ),
    "charge_outcomes": ("charge_id", "seller_message"),
    "refunds": ("id", "charge_id", "created", "amount", "status"),
    "disputes": ("id", "charge_id", "created", "amount", "reason"),
    "early_fraud_warnings": ("id", "charge_id", "created", "fraud_type"),
    "payment_intents": ("id",),
    "payment_methods": ("id", "card_fingerprint", "exp_month", "exp_year", "wallet"),
    "card_fingerprints": ("fingerprint", "brand", "funding", "issuer_country", "last4"),
    "currencies": ("code", "exponent"),
    "exchange_rates": ("day", "currency", "rate"),
    "customers": ("id", "created", "livemode"),
    "merchants": ("id", "created", "business_name", "statement_descriptor"),
    "events": ("id", "created", "type", "object_type", "object_id", "payload"),
}


class ColumnsMissing(StripePlatformError):
    """A table has no longer a column that the documents are made of."""

    def __init__(self, table: str, columns: Collection[str]) -> None:
        named = ", ".join(columns)
        super().__init__(
            f"the documents of {table} stop, for PostgreSQL has no captured column {named} in it any more, and they "
            f"need it; its changes wait in the topic: if it was renamed, give it its name back; if it was dropped, add "
            f"it again and fill it, then `stripe-platform rebuild {table}`"
        )


def require_columns(table: str, names: Collection[str]) -> None:
    """`ColumnsMissing` when one that the table's documents need is not among the names."""
    if missing := [name for name in NEEDED.get(table, ()) if name not in names]:
        raise ColumnsMissing(table, missing)
