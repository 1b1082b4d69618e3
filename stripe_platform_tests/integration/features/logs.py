"""Changes as raw change logs: what a drain of raw would have written of them."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.features.changes import Change
from stripe_platform.features.offsets import Stored
from stripe_platform.features.raw_source import Source, TableLog
from stripe_platform.oltp.catalog import Column
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.raw.schema import row_schema
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.features import rows

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SAMPLES = {
    "charges": rows.charge(1),
    "payment_intents": rows.intent(1),
    "payment_methods": rows.method(1),
    "card_fingerprints": rows.card(),
    "currencies": rows.currency("usd", 2),
    "exchange_rates": rows.rate(1, "usd", "1"),
    "charge_outcomes": rows.outcome(rows.charge(1)),
    "refunds": rows.refund(1, rows.charge(1)),
    "disputes": rows.dispute(1, rows.charge(1)),
    "early_fraud_warnings": rows.warning(1, rows.charge(1)),
    "merchants": rows.merchant(1),
    "customers": rows.customer(1),
    "events": rows.event(1),
}
_KINDS = {"timestamptz": "microseconds", "date": "days", "numeric": "decimal", "jsonb": "document"}
_KINDS |= {"int8": "integer", "bool": "boolean", "text": "text"}


def columns(table: str) -> tuple[Column, ...]:
    """The table's columns as PostgreSQL's catalog would tell them, by what the sample row holds."""
    return tuple(_column(name, value) for name, value in SAMPLES[table].items())


def _column(name: str, value: Any) -> Column:
    if name == "rate":
        return Column(name, "numeric", nullable=True, precision=20, scale=10)
    if name in ("created", "updated", "charge_created", "latest_charge_created"):
        return Column(name, "timestamptz", nullable=True, precision=None, scale=None)
    kind = "bool" if isinstance(value, bool) else "int8" if isinstance(value, int) else "text"
    type_ = {"day": "date", "metadata": "jsonb", "payload": "jsonb"}.get(name, kind)
    return Column(name, type_, nullable=True, precision=None, scale=None)


def kinds(table: str) -> dict[str, str]:
    return {column.name: _KINDS[column.type] for column in columns(table)}


class Logs:
    """The raw change logs of a home, written from changes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.holes: dict[str, str] = {}

    def log(self, table: str) -> ChangeLog:
        row = row_schema(table, columns(table))
        return ChangeLog.open(self.settings, table, row=row, topic_id=f"{table}-topic")

    def write(self, changes: Iterable[Change]) -> None:
        by_table: dict[str, list[Change]] = {}
        for change in changes:
            by_table.setdefault(change.table, []).append(change)
        for table, some in by_table.items():
            row = row_schema(table, columns(table))
            schema = pa.schema([*row, *CHANGE_FIELDS, ("_schema_version", pa.string())])
            stored = pa.Table.from_pylist([_stored(change) for change in some], schema=schema)
            self.log(table).append(stored, {0: some[-1].offset + 1})

    def source(self, settings: Settings, stored: Stored, tables: Iterable[str]) -> Source:
        """All that was written, in the place of what `raw_source` asks the servers."""
        logs = {table: self.log(table) for table in tables}
        return Source(
            {table: TableLog(log, kinds(table), log.next_offsets, "-") for table, log in logs.items()}, dict(self.holes)
        )


def _stored(change: Change) -> Mapping[str, Any]:
    told = kinds(change.table)
    row = {name: None if value is None else _value(told[name], value) for name, value in change.row.items()}
    return row | {
        "_op": change.op,
        "_lsn": change.lsn,
        "_xid": 1,
        "_committed_at": EPOCH + timedelta(microseconds=change.lsn or 0),
        "_partition": change.partition,
        "_offset": change.offset,
        "_snapshot": change.lsn is None,
        "_unchanged": list(change.unchanged),
        "_schema_version": "1",
    }


def _value(kind: str, value: Any) -> Any:
    match kind:
        case "microseconds":
            return EPOCH + timedelta(microseconds=value)
        case "days":
            return date(1970, 1, 1) + timedelta(days=value)
        case "decimal":
            return Decimal(value)
        case "document":
            return json.dumps(value)
    return value


def partitions(table: str) -> range:
    return range(TABLES_BY_NAME[table].topic_partitions)
