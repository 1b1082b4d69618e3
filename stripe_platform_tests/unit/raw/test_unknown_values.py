"""Which rows have a value that no change holds."""

import pyarrow as pa
import pytest

from stripe_platform.cdc.envelope import CHANGE_FIELDS
from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.raw.schema import versioned
from stripe_platform.raw.unknown_values import rows_with_unknown_values
from stripe_platform.settings import Settings

ROW = pa.schema({"id": pa.string(), "metadata": pa.string(), "note": pa.string()})
METADATA, NOTE = ["metadata"], ["note"]


@pytest.mark.parametrize(
    ("history", "unknown"),
    [
        pytest.param([("c", []), ("u", METADATA)], 0, id="inserted with the value"),
        pytest.param([("r", []), ("u", METADATA), ("u", METADATA)], 0, id="taken with the value"),
        pytest.param([("u", METADATA)], 1, id="updated within the chunk"),
        pytest.param([("u", METADATA), ("u", [])], 0, id="the value changed later"),
        pytest.param([("u", METADATA), ("r", [])], 0, id="taken again"),
        pytest.param([("u", METADATA), ("u", NOTE)], 0, id="each update holds the other's value"),
        pytest.param([("c", []), ("d", []), ("u", METADATA)], 1, id="the value was of a deleted row"),
        pytest.param([("u", METADATA), ("d", [])], 0, id="deleted"),
        pytest.param([("c", []), ("g", []), ("u", METADATA)], 1, id="the value may have changed in a gap"),
        pytest.param([("c", []), ("g", []), ("u", METADATA), ("r", [])], 0, id="taken again after a gap"),
        pytest.param([("u", METADATA), ("g", [])], 0, id="gone in a gap"),
    ],
)
def test_a_value_is_unknown_while_every_change_since_the_last_delete_or_gap_left_it_out(
    settings: Settings, history: list[tuple[str, list[str]]], unknown: int
) -> None:
    rows = [
        {
            "id": None if operation == "g" else "x",
            "_op": operation,
            "_partition": 0,
            "_offset": offset,
            "_unchanged": unchanged,
        }
        for offset, (operation, unchanged) in enumerate(history)
    ]
    rows.append({"id": "another", "_op": "c", "_partition": 0, "_offset": len(history), "_unchanged": []})
    changes = pa.Table.from_pylist(rows, schema=pa.schema([*ROW, *CHANGE_FIELDS]))
    log = ChangeLog.open(settings, "refunds", row=ROW, topic_id="a")
    log.append(versioned(changes, ROW), {0: len(rows)})
    assert rows_with_unknown_values(settings, "refunds") == unknown


def test_a_table_without_a_log_has_no_unknown_value(settings: Settings) -> None:
    assert rows_with_unknown_values(settings, "refunds") == 0
