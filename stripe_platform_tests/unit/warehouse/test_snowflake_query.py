from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from snowflake.connector.errors import OperationalError

from stripe_platform.settings import Settings, WarehouseEngine
from stripe_platform.warehouse.answer import QueryFailed
from stripe_platform.warehouse.checks import published_marts_match_their_cut
from stripe_platform.warehouse.snowflake import query
from stripe_platform.warehouse.snowflake.columns import NoTypeForColumn, snowflake_columns

SNOWFLAKE = Settings(warehouse=WarehouseEngine.SNOWFLAKE)


class Session:
    """A session, and its one cursor, whose rows after the first batch do not come."""

    description = ()
    fetched = 0

    @contextmanager
    def cursor(self) -> Iterator["Session"]:
        yield self

    def execute(self, sql: str) -> None:
        pass

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        self.fetched += 1
        if self.fetched > 1:
            raise OperationalError("the result is gone")
        return [(1,)]


def test_rows_that_cannot_be_fetched_are_told_as_a_query_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connected(settings: Settings, role: str) -> Iterator[Session]:
        yield Session()

    monkeypatch.setattr(query, "connected", connected)
    with query.answer(SNOWFLAKE, "select 1") as (_, batches):
        assert next(batches) == [(1,)]
        with pytest.raises(QueryFailed, match="the result is gone"):
            next(batches)


@pytest.mark.parametrize("type_", [pa.float64(), pa.binary(), pa.time64("us"), pa.struct([("a", pa.string())])])
def test_a_type_that_is_not_known_to_be_one_of_snowflakes_is_told_with_its_column(type_: pa.DataType) -> None:
    with pytest.raises(NoTypeForColumn, match=r"raw/charges has column risk of type"):
        snowflake_columns("charges", pa.schema([("id", pa.string()), ("risk", type_)]))


def test_staging_that_is_not_published_is_not_compared_with_the_published_cut() -> None:
    result = published_marts_match_their_cut(SNOWFLAKE)
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed
    assert "Not compared" in (result.description or "")
