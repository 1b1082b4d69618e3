"""Which rows may have a value by the default of a column that was added when they were there."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pytest

from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.raw.change_log import GAP, ChangeLog
from stripe_platform.raw.checks import change_log_checks
from stripe_platform.raw.missing_defaults import rows_without_default
from stripe_platform.raw.schema import FILLED_BEFORE, versioned
from stripe_platform.settings import Settings

SEEN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BEFORE, AFTER = SEEN - timedelta(seconds=1), SEEN + timedelta(seconds=1)
ROW = pa.schema({"id": pa.string()})
WIDER = pa.schema([*ROW, pa.field("fee", pa.string(), metadata={FILLED_BEFORE: SEEN.isoformat()})])

History = list[tuple[str, datetime, str | None]]


def store(settings: Settings, row: pa.Schema, history: History) -> None:
    log = ChangeLog.open(settings, "refunds", row=row, topic_id="a")
    begin = log.next_offsets[0]
    rows = [
        {"id": None if operation in (GAP, "t") else "x", "fee": None if fee == "unchanged" else fee, "_op": operation}
        | {"_committed_at": at, "_partition": 0, "_offset": offset, "_unchanged": ["fee"] * (fee == "unchanged")}
        for offset, (operation, at, fee) in enumerate(history, begin)
    ]
    changes = pa.Table.from_pylist(rows, schema=pa.schema([*row, *CHANGE_FIELDS]))
    log.append(versioned(changes, row), {0: begin + len(rows)})


@pytest.mark.parametrize(
    ("later", "rows"),
    [
        pytest.param([], 1, id="nothing has carried the column"),
        pytest.param([("u", AFTER, None)], 0, id="changed since, to null"),
        pytest.param([("r", AFTER, "5")], 0, id="read again"),
        pytest.param([("r", BEFORE, "5")], 0, id="read again before the column was first seen"),
        pytest.param([("u", BEFORE, "5"), ("u", BEFORE, "unchanged")], 0, id="large and unchanged since"),
        pytest.param([("u", BEFORE, None)], 1, id="changed before"),
        pytest.param([("d", BEFORE, None)], 0, id="deleted"),
        pytest.param([(GAP, AFTER, None)], 0, id="gone in a gap"),
        pytest.param([("t", AFTER, None)], 0, id="truncated"),
    ],
)
def test_a_row_may_lack_its_default_until_a_change_from_after_the_addition_or_a_value_is_there(
    settings: Settings, later: History, rows: int
) -> None:
    store(settings, ROW, [("c", BEFORE, None)])
    store(settings, WIDER, later)
    assert rows_without_default(settings, "refunds") == ({"fee": rows} if rows else {})


def test_the_columns_with_which_a_log_begins_lack_nothing(settings: Settings) -> None:
    store(settings, WIDER, [("c", BEFORE, None)])
    assert rows_without_default(settings, "refunds") == {}


def test_the_check_names_table_column_and_remedy_and_passes_once_the_rows_were_read(settings: Settings) -> None:
    (check,) = [
        check
        for check in change_log_checks
        for key in check.check_keys
        if (key.asset_key.path[-1], key.name) == ("refunds", "no_default_is_missing")
    ]
    store(settings, ROW, [("c", BEFORE, None)])
    store(settings, WIDER, [])
    failed = check(settings=settings)
    assert isinstance(failed, dg.AssetCheckResult)
    assert not failed.passed
    assert failed.description == "1 rows of refunds may have a value in the added column fee that no change told"
    assert failed.metadata["remedy"].value == "stripe-platform snapshot refunds --again"
    store(settings, WIDER, [("r", AFTER, "5")])
    passed = check(settings=settings)
    assert isinstance(passed, dg.AssetCheckResult)
    assert passed.passed
