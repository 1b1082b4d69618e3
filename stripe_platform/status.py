"""What is where: servers, rows per stage, lag, the slot and the last days' revenue."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import NamedTuple, TypeVar

import duckdb
import psycopg
from deltalake.exceptions import DeltaError
from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stripe_platform.cdc.lag import Lag
from stripe_platform.cdc.observation import TopicState, topic_states
from stripe_platform.cdc.slot import Slot, slot_state
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.stack import server_states
from stripe_platform.money import major_units
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import CAPTURED_TABLES, TABLES_BY_NAME
from stripe_platform.raw.change_log import row_count
from stripe_platform.raw.lag import raw_lag
from stripe_platform.settings import Settings
from stripe_platform.warehouse.answer import Reader
from stripe_platform.warehouse.engines import engine_of
from stripe_platform.warehouse.staging import staging_model

T = TypeVar("T")
REVENUE_DAYS = 7
STAGES_WIDTH = 130
# Long enough for the moment in which the file is replaced.
WAREHOUSE_LIMIT = timedelta(seconds=2)


class Stage(BaseModel):
    """One captured table on its way; None where the stage cannot be read.

    Offsets are {partition: offset}: of the oldest record kept, and after the last one that readers may see;
    `topic_offset` is the sum of the latter.
    """

    table: str
    oltp_rows: int | None
    topic_begin_offsets: dict[int, int] | None
    topic_end_offsets: dict[int, int] | None
    topic_offset: int | None
    raw_rows: int | None
    staging_rows: int | None
    lag_messages: int | None
    lag_seconds: float | None


class SlotStatus(BaseModel):
    """The replication slot: `state` for people, `wal_status` in PostgreSQL's word; it is lost past `limit_bytes`."""

    state: str
    wal_status: str | None
    kept_bytes: int
    unconfirmed_bytes: int
    limit_bytes: int | None


class Revenue(BaseModel):
    """One day of one currency over all merchants, in minor units; `exponent` gives the decimals."""

    day: str
    currency: str
    exponent: int
    gross: int
    refunds: int
    disputes: int
    fees: int
    net: int


class PlatformStatus(BaseModel):
    """The answer of `stripe-platform status`."""

    servers: dict[str, str]
    urls: dict[str, str]
    stages: list[Stage]
    slot: SlotStatus | None
    revenue: list[Revenue]


def platform_status(settings: Settings) -> PlatformStatus:
    """Read every stage once; what cannot be reached is None, never an error."""
    oltp = _or_none(lambda: _oltp_rows(settings)) or {}
    topics = _or_none(lambda: topic_states(settings, TABLES_BY_NAME)) or {}
    lag = (_or_none(lambda: raw_lag(settings)) or {}) if topics else {}
    slot = _or_none(lambda: slot_state(settings))
    warehouse = _or_none(lambda: _warehouse(settings)) or Warehouse({}, [])
    return PlatformStatus(
        servers={server.title: server.state for server in server_states(settings)},
        urls=urls(settings),
        stages=[
            _stage(
                settings,
                table,
                topics.get(table),
                lag.get(table),
                oltp_rows=oltp.get(table),
                staging_rows=warehouse.staging_rows.get(table),
            )
            for table in TABLES_BY_NAME
        ],
        slot=_slot_status(slot) if slot else None,
        revenue=warehouse.revenue,
    )


def _stage(
    settings: Settings,
    table: str,
    topic: TopicState | None,
    lag: Lag | None,
    *,
    oltp_rows: int | None,
    staging_rows: int | None,
) -> Stage:
    return Stage(
        table=table,
        oltp_rows=oltp_rows,
        topic_begin_offsets=dict(topic.begin) if topic else None,
        topic_end_offsets=dict(topic.last_stable) if topic else None,
        topic_offset=sum(topic.last_stable.values()) if topic else None,
        raw_rows=_or_none(lambda: row_count(settings, table)),
        staging_rows=staging_rows,
        lag_messages=lag.messages if lag else None,
        lag_seconds=lag.seconds if lag else None,
    )


def _slot_status(slot: Slot) -> SlotStatus:
    return SlotStatus(
        state=slot.describe(),
        wal_status=slot.wal_status,
        kept_bytes=slot.kept_bytes,
        unconfirmed_bytes=slot.unconfirmed_bytes,
        limit_bytes=slot.limit_bytes,
    )


def urls(settings: Settings) -> dict[str, str]:
    """Where each server listens; no password in any of them."""
    return {
        "Dagster": f"http://127.0.0.1:{settings.dagster_port}",
        "Dashboard": f"http://127.0.0.1:{settings.dashboard_port}",
        "Kafka Connect": settings.connect_url,
        "PostgreSQL": f"postgresql://{settings.postgres_user}@{settings.postgres_host}:"
        f"{settings.postgres_port}/{settings.postgres_database}",
        "Kafka": settings.kafka_bootstrap,
        "MongoDB": f"mongodb://{settings.mongodb_host}:{settings.mongodb_port}",
        "Stream": f"http://127.0.0.1:{settings.metrics_port}/metrics",
    }


def print_status(status: PlatformStatus, console: Console) -> None:
    """The status as tables for people."""
    table = _table("Rows per stage", "table")
    for header in ("OLTP", "topic begin", "topic end", "raw", "staging", "lag", "oldest"):
        table.add_column(header, justify="right", no_wrap=True)
    for stage in status.stages:
        begin = None if stage.topic_begin_offsets is None else sum(stage.topic_begin_offsets.values())
        counts = (stage.oltp_rows, begin, stage.topic_offset, stage.raw_rows, stage.staging_rows, stage.lag_messages)
        seconds = "-" if not stage.lag_messages or stage.lag_seconds is None else f"{stage.lag_seconds:.0f} s"
        table.add_row(stage.table, *("-" if n is None else f"{n:,}" for n in counts), seconds)
    # In a narrow terminal a line that goes on below can be read, a number cut short cannot.
    console.width = max(console.width, STAGES_WIDTH)
    console.print(table)
    console.print(_slot_line(status.slot), highlight=False, soft_wrap=True)
    if status.revenue:
        revenue = _table(f"Revenue, last {REVENUE_DAYS} days with movements", "day", "currency")
        for header in ("gross", "refunds", "disputes", "fees", "net"):
            revenue.add_column(header, justify="right")
        for row in status.revenue:
            amounts = (row.gross, row.refunds, row.disputes, row.fees, row.net)
            revenue.add_row(row.day, row.currency, *(major_units(amount, row.exponent) for amount in amounts))
        console.print(revenue)
    servers = _table("Servers", "server", "state", "address")
    for name, state in status.servers.items():
        servers.add_row(name, state.lower(), status.urls[name])
    console.print(servers)


def _slot_line(slot: SlotStatus | None) -> str:
    if slot is None:
        return "Replication slot: none, or it cannot be asked\n"
    limit = "" if slot.limit_bytes is None else f" of {slot.limit_bytes:,} at most"
    return f"Replication {slot.state}, {slot.kept_bytes:,} bytes of log kept{limit}\n"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    # Some part is not there yet, or not any more: that is what a status shall show.
    except (StripePlatformError, duckdb.Error, psycopg.Error, DeltaError):
        return None


def _oltp_rows(settings: Settings) -> dict[str, int]:
    counts = " union all ".join(f"select '{table.name}', count(*) from {table.qualified}" for table in CAPTURED_TABLES)
    with connect(settings) as connection:
        return dict(connection.execute(counts.encode()).fetchall())


class Warehouse(NamedTuple):
    """What the published file says: {table: rows} of the staging models that are in it, and the revenue."""

    staging_rows: dict[str, int]
    revenue: list[Revenue]


def _warehouse(settings: Settings) -> Warehouse:
    """Opened once for everything, so that an unreadable file costs its limit once."""
    with engine_of(settings).reader(settings, WAREHOUSE_LIMIT) as read:
        rows = {table: _or_none(partial(_staging_rows, read, table)) for table in TABLES_BY_NAME}
        revenue = _or_none(lambda: _revenue(read)) or []
    return Warehouse({table: count for table, count in rows.items() if count is not None}, revenue)


def _staging_rows(read: Reader, table: str) -> int:
    ((rows,),) = read(f"select count(*) from staging.{staging_model(table)}")
    return int(rows)


def _revenue(read: Reader) -> list[Revenue]:
    rows = read(
        f"""
        with days as (select distinct day from marts.daily_revenue order by day desc limit {REVENUE_DAYS})
        select cast(day as varchar), currency, exponent, cast(sum(gross) as bigint), cast(sum(refunds) as bigint),
            cast(sum(disputes) as bigint), cast(sum(fees) as bigint), cast(sum(net) as bigint)
        from marts.daily_revenue
        join staging.stg_currencies on stg_currencies.code = currency
        where day in (select day from days)
        group by 1, 2, 3
        order by 1, 2, 3
        """
    )
    return [Revenue(**dict(zip(Revenue.model_fields, row, strict=True))) for row in rows]
