"""What is where: servers, rows per stage, lag and the last days' revenue."""

from collections.abc import Callable
from typing import TypeVar

import duckdb
import psycopg
from deltalake.exceptions import DeltaError
from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.errors import StripePlatformError
from stripe_platform.local.stack import server_states
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import CAPTURED_TABLES, TABLES_BY_NAME
from stripe_platform.raw.change_log import row_count
from stripe_platform.raw.lag import raw_lag
from stripe_platform.settings import Settings
from stripe_platform.warehouse.query import query_rows
from stripe_platform.warehouse.staging import staging_model

T = TypeVar("T")
REVENUE_DAYS = 7


class Stage(BaseModel):
    """One captured table on its way; None where the stage cannot be read."""

    table: str
    oltp_rows: int | None
    topic_offset: int | None
    raw_rows: int | None
    staging_rows: int | None
    lag_messages: int | None
    lag_seconds: float | None


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
    revenue: list[Revenue]


def platform_status(settings: Settings) -> PlatformStatus:
    """Read every stage once; what cannot be reached is None, never an error."""
    oltp = _or_none(lambda: _oltp_rows(settings)) or {}
    topics = _or_none(lambda: last_stable_offsets(settings, list(TABLES_BY_NAME))) or {}
    lag = (_or_none(lambda: raw_lag(settings)) or {}) if topics else {}
    stages = []
    for table in TABLES_BY_NAME:
        partitions = topics.get(table)
        table_lag = lag.get(table)
        stages.append(
            Stage(
                table=table,
                oltp_rows=oltp.get(table),
                topic_offset=sum(partitions.values()) if partitions is not None else None,
                raw_rows=_or_none(lambda table=table: row_count(settings, table)),  # type: ignore[misc]
                staging_rows=_or_none(lambda table=table: _staging_rows(settings, table)),  # type: ignore[misc]
                lag_messages=table_lag.messages if table_lag else None,
                lag_seconds=table_lag.seconds if table_lag else None,
            )
        )
    return PlatformStatus(
        servers={server.title: server.state for server in server_states(settings)},
        urls=urls(settings),
        stages=stages,
        revenue=_or_none(lambda: _revenue(settings)) or [],
    )


def urls(settings: Settings) -> dict[str, str]:
    """Where each server listens; no password in any of them."""
    return {
        "Dagster": f"http://127.0.0.1:{settings.dagster_port}",
        "Kafka Connect": settings.connect_url,
        "PostgreSQL": f"postgresql://{settings.postgres_user}@{settings.postgres_host}:"
        f"{settings.postgres_port}/{settings.postgres_database}",
        "Kafka": settings.kafka_bootstrap,
        "MongoDB": f"mongodb://{settings.mongodb_host}:{settings.mongodb_port}",
    }


def print_status(status: PlatformStatus, console: Console) -> None:
    """The status as tables for people."""
    table = _table("Rows per stage", "table")
    for header in ("OLTP", "topic end", "raw", "staging", "lag", "oldest"):
        table.add_column(header, justify="right", no_wrap=True)
    for stage in status.stages:
        counts = (stage.oltp_rows, stage.topic_offset, stage.raw_rows, stage.staging_rows, stage.lag_messages)
        seconds = "-" if not stage.lag_messages or stage.lag_seconds is None else f"{stage.lag_seconds:.0f} s"
        table.add_row(stage.table, *("-" if n is None else f"{n:,}" for n in counts), seconds)
    console.print(table)
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


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def major_units(amount: int, exponent: int) -> str:
    """`amount` minor units as a decimal text: (-123456, 2) is "-1,234.56"."""
    whole, fraction = divmod(abs(amount), 10**exponent)
    text = f"{whole:,}" + (f".{fraction:0{exponent}d}" if exponent else "")
    return f"-{text}" if amount < 0 else text


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


def _staging_rows(settings: Settings, table: str) -> int:
    ((rows,),) = query_rows(settings, f"select count(*) from staging.{staging_model(table)}")
    return int(rows)


def _revenue(settings: Settings) -> list[Revenue]:
    rows = query_rows(
        settings,
        f"""
        with days as (select distinct day from marts.daily_revenue order by day desc limit {REVENUE_DAYS})
        select cast(day as varchar), currency, exponent, sum(gross)::bigint, sum(refunds)::bigint,
            sum(disputes)::bigint, sum(fees)::bigint, sum(net)::bigint
        from marts.daily_revenue
        join staging.stg_currencies on stg_currencies.code = currency
        where day in (select day from days)
        group by all
        order by all
        """,
    )
    return [Revenue(**dict(zip(Revenue.model_fields, row, strict=True))) for row in rows]
