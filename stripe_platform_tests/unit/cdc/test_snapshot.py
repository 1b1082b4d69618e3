import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stripe_platform.cdc.snapshot import SnapshotProgress
from stripe_platform.cdc.snapshot_notices import Notice, Start, decode, decode_start
from stripe_platform.cdc.snapshot_report import PARTS, described, sparingly


def notification(kind: str, aggregate: str = "Incremental Snapshot", **data: str) -> bytes:
    told: dict[str, Any] = {"id": "a", "type": kind, "aggregate_type": aggregate, "additional_data": data}
    return json.dumps(told).encode()


def test_a_chunk_that_was_read_names_its_table() -> None:
    value = notification("IN_PROGRESS", current_collection_in_progress="payments.charges", last_processed_key="7")
    assert decode(value) == Notice("a", "IN_PROGRESS", "charges", chunk="7")


def test_a_table_that_ended_tells_how_and_with_how_many_rows() -> None:
    value = notification(
        "TABLE_SCAN_COMPLETED", scanned_collection="payments.charges", total_rows_scanned="12", status="SUCCEEDED"
    )
    assert decode(value) == Notice("a", "TABLE_SCAN_COMPLETED", "charges", "SUCCEEDED", 12)


def test_an_empty_table_has_no_rows_whatever_was_counted_before() -> None:
    value = notification(
        "TABLE_SCAN_COMPLETED", scanned_collection="payments.charges", total_rows_scanned="12", status="EMPTY"
    )
    notice = decode(value)
    assert notice is not None
    assert notice.rows == 0


def test_notifications_of_other_things_are_none() -> None:
    assert decode(notification("SKIPPED", aggregate="Initial Snapshot")) is None
    assert decode(None) is None


def test_a_start_tells_whether_there_were_stored_offsets_and_what_follows_it_is_none() -> None:
    aggregate = "Initial Snapshot"
    assert decode_start(notification("STARTED", aggregate), 7) == Start(7, had_offsets=False)
    assert decode_start(notification("SKIPPED", aggregate), 8) == Start(8, had_offsets=True)
    assert decode_start(notification("COMPLETED", aggregate), 9) is None
    assert decode_start(notification("STARTED"), 10) is None
    assert decode_start(None, 11) is None


@given(rows=st.integers(1, 10**7), chunk=st.integers(1, 10_000), estimate=st.none() | st.integers(0, 10**7))
def test_however_many_chunks_a_table_has_few_are_told_the_first_and_the_end_among_them(
    rows: int, chunk: int, estimate: int | None
) -> None:
    told: list[SnapshotProgress] = []
    tell = sparingly(told.append)
    chunks = range(chunk, rows + chunk, max(chunk, rows // 2_000))
    for done in chunks:
        tell(SnapshotProgress("charges", done, estimate))
    tell(SnapshotProgress("charges", rows, rows, is_complete=True))
    assert told[0].rows == chunk
    assert told[-1].is_complete
    # Twenty up to the estimate, and one per doubling beyond it.
    assert len(told) <= PARTS + 26 + 2


def test_progress_is_told_with_its_share_where_there_is_an_estimate() -> None:
    assert described(SnapshotProgress("charges", 5_000, 20_000)) == "charges: 5,000 of about 20,000 rows (25 %)"
    assert described(SnapshotProgress("charges", 30_000, 20_000)) == "charges: 30,000 of about 20,000 rows (99 %)"
    assert described(SnapshotProgress("charges", 5_000, None)) == "charges: 5,000 rows"
    assert described(SnapshotProgress("charges", 7, 7, is_complete=True)) == "charges: complete, 7 rows"
