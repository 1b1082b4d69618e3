"""Ids as Stripe writes them: a prefix that names the kind, and the 32 hexadecimal digits of the row's uuid."""

from collections.abc import Mapping
from typing import Any

PREFIXES = {
    "charges": "ch_",
    "customers": "cus_",
    "disputes": "dp_",
    "early_fraud_warnings": "issfr_",
    "events": "evt_",
    "invoices": "in_",
    "merchants": "acct_",
    "payment_intents": "pi_",
    "payment_methods": "pm_",
    "payouts": "po_",
    "refunds": "re_",
    "reviews": "prv_",
    "subscriptions": "sub_",
}

# Columns that name a row of another table: the field of the document, and that table. A charge embeds its intent under
# the short name, so that the reference keeps its column's.
_REFERENCES = {
    "merchant_id": ("merchant", "merchants"),
    "customer_id": ("customer", "customers"),
    "payment_method_id": ("payment_method", "payment_methods"),
    "payment_intent_id": ("payment_intent_id", "payment_intents"),
    "invoice_id": ("invoice", "invoices"),
    "latest_charge_id": ("latest_charge", "charges"),
}
_BY_COLUMN = tuple((column, field, PREFIXES[table]) for column, (field, table) in _REFERENCES.items())
# What an event's `object_type` says of its `object_id`.
_OBJECT_PREFIXES = {table.removesuffix("s"): prefix for table, prefix in PREFIXES.items()}


def prefixed(table: str, key: str) -> str:
    """The id of a row of the table by its uuid."""
    return PREFIXES[table] + key.replace("-", "")


def prefixed_object(object_type: str, key: str) -> str:
    """The id of what an event is about; the uuid as it is where the type has no prefix."""
    prefix = _OBJECT_PREFIXES.get(object_type)
    return key if prefix is None else prefix + key.replace("-", "")


def with_references(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's columns with prefixed ids for what they refer to, under the documents' names; `id` as it is."""
    fields = dict(row)
    for column, field, prefix in _BY_COLUMN:
        if column in fields:
            key = fields.pop(column)
            fields[field] = key and prefix + key.replace("-", "")
    return fields
