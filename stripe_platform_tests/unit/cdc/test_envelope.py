"""Debezium's envelopes, as the connector of this platform writes them, become typed rows or are refused."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_platform.cdc.envelope import (
    CHANGE_FIELDS,
    TIMESTAMP,
    Layout,
    Records,
    UndecodableRecord,
    UnknownColumns,
    decode,
)

TOPIC = "stripe.payments.things"
PLACEHOLDER = "unchanged-3f9ab2"
COLUMNS = pa.schema(
    {
        "id": pa.string(),
        "created": TIMESTAMP,
        "amount": pa.int64(),
        "exponent": pa.int16(),
        "paid": pa.bool_(),
        "rate": pa.decimal128(20, 10),
        "day": pa.date32(),
        "metadata": pa.string(),
        "description": pa.string(),
    }
)
LAYOUT = Layout("things", ("id", "created"), COLUMNS, PLACEHOLDER)
ROW = {
    "id": "01a20512-a5da-7af9-a796-9332ddea766f",
    "created": "2026-11-22T21:03:57.909395Z",
    "amount": 1250,
    "exponent": 2,
    "paid": True,
    "rate": "0.2268000000",
    "day": 17532,
    "metadata": '{"order": "7"}',
    "description": None,
}
TYPED = {
    "id": "01a20512-a5da-7af9-a796-9332ddea766f",
    "created": datetime(2026, 11, 22, 21, 3, 57, 909395, tzinfo=UTC),
    "amount": 1250,
    "exponent": 2,
    "paid": True,
    "rate": Decimal("0.2268000000"),
    "day": date(2018, 1, 1),
    "metadata": '{"order": "7"}',
    "description": None,
}
NO_ROW = dict.fromkeys(COLUMNS.names)
# What the connector writes for the old row when only the key is in the log: defaults, and the epoch for times.
OLD_ROW = ROW | {"amount": 0, "paid": True, "metadata": "{}", "rate": None, "day": 0}


def event(kind: str = "c", **changed: Any) -> dict[str, Any]:
    """An event as Debezium 3.6 writes it; `source` is merged, other parts replaced."""
    source = {
        "version": "3.6.3.Final",
        "connector": "postgresql",
        "name": "stripe",
        "ts_ms": 1795381402734,
        "snapshot": "false",
        "db": "stripe",
        "sequence": '[null,"27695696"]',
        "ts_us": 1795381402734349,
        "ts_ns": 1795381402734349000,
        "schema": "payments",
        "table": "things",
        "txId": 752,
        "lsn": 27695696,
        "xmin": None,
        "origin": None,
        "origin_lsn": None,
    }
    parts = {
        "before": OLD_ROW if kind == "d" else None,
        "after": ROW if kind in "cur" else None,
        "source": source | changed.pop("source", {}),
        "transaction": {"id": "752:27695696", "total_order": 1, "data_collection_order": 1},
        "op": kind,
        "ts_ms": 1795381403433,
        "ts_us": 1795381403433615,
        "ts_ns": 1795381403433615818,
    }
    return parts | changed


def records(*events: dict[str, Any] | bytes | None, partition: int = 3, begin: int = 70) -> Records:
    values = [
        json.dumps(event, separators=(",", ":")).encode() if isinstance(event, dict) else event for event in events
    ]
    return Records(TOPIC, [partition] * len(values), [begin + place for place in range(len(values))], values)


def rows(*events: dict[str, Any] | bytes | None) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = decode(records(*events), LAYOUT).to_pylist()
    return decoded


def own_columns(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in COLUMNS.names}


def test_an_insert_becomes_a_typed_row_with_its_place_in_log_and_topic() -> None:
    assert rows(event("c")) == [
        TYPED
        | {
            "_op": "c",
            "_lsn": 27695696,
            "_xid": 752,
            "_committed_at": datetime(2026, 11, 22, 21, 3, 22, 734349, tzinfo=UTC),
            "_partition": 3,
            "_offset": 70,
            "_snapshot": False,
            "_unchanged": [],
        }
    ]


def test_the_schema_is_the_layout_then_the_fields_of_a_change() -> None:
    for table in (decode(records(event()), LAYOUT), decode(records(None), LAYOUT)):
        assert table.schema.equals(pa.schema([*COLUMNS, *CHANGE_FIELDS]))


def test_an_update_carries_the_new_row() -> None:
    (row,) = rows(event("u", after=ROW | {"amount": 99}))
    assert row["_op"] == "u"
    assert own_columns(row) == TYPED | {"amount": 99}


def test_a_delete_carries_its_key_and_none_of_the_defaults_in_the_old_row() -> None:
    (row,) = rows(event("d"))
    assert row["_op"] == "d"
    assert own_columns(row) == NO_ROW | {"id": TYPED["id"], "created": TYPED["created"]}


def test_a_delete_beside_an_insert_takes_nothing_from_it() -> None:
    other = ROW | {"id": "other"}
    inserted, deleted = rows(event("c", after=other), event("d"))
    assert own_columns(inserted) == TYPED | {"id": "other"}
    assert own_columns(deleted) == NO_ROW | {"id": TYPED["id"], "created": TYPED["created"]}


def test_a_truncate_has_no_row() -> None:
    (row,) = rows(event("t"))
    assert row["_op"] == "t"
    assert own_columns(row) == NO_ROW


@pytest.mark.parametrize("mark", ["true", "first", "first_in_data_collection", "last", "incremental"])
def test_a_snapshot_record_is_marked_as_one(mark: str) -> None:
    (row,) = rows(event("r", source={"snapshot": mark}))
    assert row["_op"] == "r"
    assert row["_snapshot"] is True


def test_an_incremental_snapshot_record_has_neither_lsn_nor_xid() -> None:
    (row,) = rows(event("r", source={"snapshot": "incremental", "lsn": None, "txId": None}))
    assert (row["_lsn"], row["_xid"]) == (None, None)


def test_a_tombstone_gives_no_row_and_the_offsets_around_it_stay() -> None:
    assert [(row["_op"], row["_offset"]) for row in rows(event("d"), None, event("c"))] == [
        ("d", 70),
        ("c", 72),
    ]


def test_tombstones_alone_give_an_empty_table() -> None:
    assert rows(None, None) == []


def test_an_unchanged_large_value_is_null_and_named() -> None:
    same, changed, both = rows(
        event("u", after=ROW | {"metadata": PLACEHOLDER}),
        event("u"),
        event("u", after=ROW | {"metadata": PLACEHOLDER, "description": PLACEHOLDER}),
    )
    assert (same["metadata"], same["_unchanged"]) == (None, ["metadata"])
    assert (changed["metadata"], changed["_unchanged"]) == (TYPED["metadata"], [])
    assert both["_unchanged"] == ["metadata", "description"]


def test_a_text_that_only_holds_the_placeholder_is_kept() -> None:
    text = f"see {PLACEHOLDER}"
    (row,) = rows(event("u", after=ROW | {"metadata": text}))
    assert (row["metadata"], row["_unchanged"]) == (text, [])


def test_a_column_that_an_older_record_lacks_is_null() -> None:
    older = {name: value for name, value in ROW.items() if name != "amount"}
    assert [row["amount"] for row in rows(event(after=older), event())] == [None, 1250]


@pytest.mark.parametrize("image", ["after", "before"])
def test_a_column_that_the_layout_lacks_is_named_even_when_it_is_null(image: str) -> None:
    with pytest.raises(UnknownColumns, match=r"things.*nickname") as unknown:
        rows(event(), event("u", **{image: ROW | {"nickname": None}}))
    assert unknown.value.columns == {"nickname"}


def test_a_new_field_of_the_connector_is_passed_over() -> None:
    (row,) = rows(event(source={"shard": {"id": 3}}, vendor="x"))
    assert own_columns(row) == TYPED


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-11-22T21:03:57Z", 0),
        ("2026-11-22T21:03:57.1Z", 100_000),
        ("2026-11-22T21:03:57.000001Z", 1),
        ("2026-11-22T23:03:57.5+02:00", 500_000),
    ],
)
def test_times_keep_their_microseconds_and_become_utc(text: str, microseconds: int) -> None:
    (row,) = rows(event(after=ROW | {"created": text}))
    assert row["created"] == datetime(2026, 11, 22, 21, 3, 57, microseconds, tzinfo=UTC)


def test_the_commit_time_falls_back_to_milliseconds() -> None:
    (row,) = rows(event(source={"ts_us": None}))
    assert row["_committed_at"] == datetime(2026, 11, 22, 21, 3, 22, 734000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"op": "c"', "not valid JSON"),
        (b'{"op": "c"} {"op": "c"}', "not valid JSON"),
        # Would pass for two rows where the reader wraps each value in a line of its own.
        (b'{"op":"c"}}\n{"position":1,"event":{"op":"c"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"null", "op is missing or none of c, u, d, r, t"),
        (b"[]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (event(after=[ROW]), "after is not of type struct"),
        (event(op=7), "op is not of type string"),
        (b"{}", "op is missing or none of c, u, d, r, t"),
        (event("m"), "op is missing or none of c, u, d, r, t"),
        (event("c", after=None), "after is missing"),
        (event("u", after=None), "after is missing"),
        (event("d", before=None), "before is missing"),
        (event("c", after=ROW | {"id": None}), "key column id is missing"),
        (event("d", before=OLD_ROW | {"created": None}), "key column created is missing"),
        (event(source={"table": "others"}), "source.table is another one"),
        (event(source={"ts_us": None, "ts_ms": None}), "source.ts_us and source.ts_ms are missing"),
        (event(source={"lsn": None}), "source.lsn is missing"),
        (event(source={"lsn": "x"}), "source.lsn is not of type int64"),
        (event(after=ROW | {"amount": "12"}), "after.amount is not of type int64"),
        (event(after=ROW | {"amount": 12.5}), "after.amount is not of type int64"),
        (event(after=ROW | {"amount": 2**63}), "after.amount is not of type int64"),
        (event(after=ROW | {"exponent": 40_000}), "after.exponent is not of type int16"),
        (event(after=ROW | {"paid": 1}), "after.paid is not of type bool"),
        (event(after=ROW | {"id": 5}), "after.id is not of type string"),
        (event(after=ROW | {"rate": "1.00000000001"}), r"after.rate is not of type decimal128\(20, 10\)"),
        (event(after=ROW | {"rate": "NaN"}), r"after.rate is not of type decimal128\(20, 10\)"),
        (event(after=ROW | {"created": "infinity"}), "after.created is not of type timestamp"),
        (event(after=ROW | {"created": "-0043-03-15T00:00:00Z"}), "after.created is not of type timestamp"),
        # What the connector writes for the dates infinity and 44 BC.
        (event(after=ROW | {"day": -2147472692}), "day is infinite or outside the years 1 to 9999"),
        (event(after=ROW | {"day": -735160}), "day is infinite or outside the years 1 to 9999"),
    ],
)
def test_a_record_that_is_no_change_of_the_table_is_named_by_its_place_and_reason(
    poison: dict[str, Any] | bytes, reason: str
) -> None:
    with pytest.raises(UndecodableRecord, match=reason) as refused:
        rows(event(), event(), poison, event())
    assert (refused.value.topic, refused.value.partition, refused.value.offset) == (TOPIC, 3, 72)


def test_of_two_poisoned_records_the_first_is_named() -> None:
    with pytest.raises(UndecodableRecord) as refused:
        rows(event(), event("m"), event("c", after=None))
    assert refused.value.offset == 71
    with pytest.raises(UndecodableRecord) as refused:
        rows(event(), b"x", event(), b"x")
    assert refused.value.offset == 71


def test_no_value_is_in_the_error_of_a_poisoned_record() -> None:
    canary = "canary-4242"
    for poison in (
        canary.encode(),
        event(after=ROW | {"amount": canary}),
        event(after=ROW | {"created": canary}),
        event(canary),
        event(source={"table": canary}),
    ):
        with pytest.raises(UndecodableRecord) as refused:
            rows(poison)
        assert canary not in str(refused.value)
        # Nor in what a log would print beneath it.
        assert refused.value.__cause__ is None
        assert refused.value.__context__ is None


TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
DECIMALS = st.integers(-(10**20) + 1, 10**20 - 1).map(lambda unscaled: Decimal(unscaled).scaleb(-10))
TYPED_ROWS = st.fixed_dictionaries(
    {
        "id": st.text(),
        "created": TIMES,
        "amount": st.none() | st.integers(-(2**63), 2**63 - 1),
        "exponent": st.none() | st.integers(-(2**15), 2**15 - 1),
        "paid": st.none() | st.booleans(),
        "rate": st.none() | DECIMALS,
        "day": st.none() | st.dates(),
        "metadata": st.none() | st.text(),
        "description": st.none() | st.text(),
    }
)


def as_debezium(row: dict[str, Any]) -> dict[str, Any]:
    created: datetime = row["created"]
    return row | {
        "created": created.replace(tzinfo=None).isoformat() + "Z",
        "rate": None if row["rate"] is None else f"{row['rate']:f}",
        "day": None if row["day"] is None else (row["day"] - date(1970, 1, 1)) // timedelta(days=1),
    }


@given(st.lists(TYPED_ROWS, min_size=1, max_size=5), st.booleans())
def test_every_row_that_postgresql_can_hold_comes_back_as_it_was(typed: list[dict[str, Any]], escape: bool) -> None:
    values = [json.dumps(event(after=as_debezium(row)), ensure_ascii=escape).encode("utf-8") for row in typed]
    assert [own_columns(row) for row in rows(*values)] == typed


@given(st.binary(max_size=40), st.integers(0, 600), st.integers(0, 40))
def test_a_damaged_record_is_a_row_or_is_refused_and_its_neighbours_never_change(
    splinter: bytes, place: int, cut: int
) -> None:
    whole = json.dumps(event()).encode()
    try:
        before, *_, after = rows(event(), whole[:place] + splinter + whole[place + cut :], event())
    except (UndecodableRecord, UnknownColumns):
        return
    assert own_columns(before) == own_columns(after) == TYPED
