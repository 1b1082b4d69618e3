"""Each check of the raw change log passes on a sound log and fails, counting, on a broken one."""

import dagster as dg
import pyarrow as pa
import pytest

from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.raw.checks import change_log_checks
from stripe_platform.raw.schema import versioned
from stripe_platform.settings import Settings

CHECKS = {(key.asset_key.path[-1], key.name): check for check in change_log_checks for key in check.check_keys}
ROW = pa.schema({"id": pa.string()})


def store(settings: Settings, offsets: list[int], next_offset: int) -> None:
    rows = [{"id": "x", "_partition": 0, "_offset": offset, "_unchanged": []} for offset in offsets]
    changes = pa.Table.from_pylist(rows, schema=pa.schema([*ROW, *CHANGE_FIELDS]))
    log = ChangeLog.open(settings, "refunds", row=ROW, topic_id="a")
    log.append(versioned(changes, ROW), {0: next_offset})


def verdict(settings: Settings, name: str) -> dg.AssetCheckResult:
    result = CHECKS["refunds", name](settings=settings)
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_every_table_has_every_check() -> None:
    assert CHECKS.keys() == {
        (table.name, name)
        for table in CAPTURED_TABLES
        for name in (
            "no_offset_is_stored_twice",
            "rows_stay_below_the_stored_offsets",
            "no_value_is_unknown",
            "no_default_is_missing",
        )
    }


@pytest.mark.parametrize("name", ["no_offset_is_stored_twice", "rows_stay_below_the_stored_offsets"])
def test_a_sound_log_passes(settings: Settings, name: str) -> None:
    store(settings, [0, 1, 3], 4)
    assert verdict(settings, name).passed


def test_an_offset_that_is_stored_twice_fails_the_check_and_is_counted(settings: Settings) -> None:
    store(settings, [0, 1, 1, 1, 2, 2], 3)
    result = verdict(settings, "no_offset_is_stored_twice")
    assert not result.passed
    assert result.metadata["offsets_stored_twice"].value == 2


def test_a_row_past_the_stored_offset_fails_the_check_and_is_counted(settings: Settings) -> None:
    store(settings, [0, 1, 2], 1)
    result = verdict(settings, "rows_stay_below_the_stored_offsets")
    assert not result.passed
    assert result.metadata["rows_beyond_offsets"].value == 2
